import type { Database, Statement } from 'better-sqlite3';
import type { LeaseClaim, LeaseRow } from '../store.ts';
import { checkRows, integer, type RowShape, text } from './row-shape.ts';

const NEXT_EPOCH = 'UPDATE owner SET epoch = epoch + 1 RETURNING epoch';

// One that has expired, was let go of, or belonged to a process that no longer owns the store, is free.
const ACQUIRE = `
INSERT INTO leases (name, holder, token, epoch, acquired_at, expires_at)
VALUES (:name, :holder, 1, :epoch, :now, :now + :ttlMs)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, token = leases.token + 1,
  epoch = excluded.epoch, acquired_at = excluded.acquired_at, expires_at = excluded.expires_at
WHERE leases.expires_at <= :now OR leases.epoch < :epoch`;

const EXTEND = `
UPDATE leases SET expires_at = :now + :ttlMs
WHERE name = :name AND token = :token AND epoch = :epoch AND expires_at > :now`;

const RELEASE = 'UPDATE leases SET expires_at = 0 WHERE name = :name AND token = :token';

const COLUMNS = `
name, holder, token, acquired_at AS acquiredAt, expires_at AS expiresAt`;

const ONE = `SELECT ${COLUMNS} FROM leases WHERE name = ?`;

/** @see `RowReader.listLeases` */
export const HELD_LEASES = `
SELECT ${COLUMNS} FROM leases WHERE epoch = (SELECT epoch FROM owner) AND expires_at > ? ORDER BY name`;

export const leaseRow: RowShape<LeaseRow> = {
  name: text,
  holder: text,
  token: integer,
  acquiredAt: integer,
  expiresAt: integer,
};

/** In the transaction of the caller. @returns the epoch of this opening, greater than that of every one before */
export function takeEpoch(db: Database): number {
  return db.prepare(NEXT_EPOCH).pluck().get() as number;
}

/** The statements for leases, each within a transaction of the caller. */
export class LeaseRows {
  readonly #epoch: number;
  readonly #acquire: Statement;
  readonly #extend: Statement;
  readonly #release: Statement;
  readonly #one: Statement;

  constructor(db: Database, epoch: number) {
    this.#epoch = epoch;
    this.#acquire = db.prepare(ACQUIRE);
    this.#extend = db.prepare(EXTEND);
    this.#release = db.prepare(RELEASE);
    this.#one = db.prepare(ONE);
  }

  acquire(claim: LeaseClaim): { readonly acquired: boolean; readonly lease: LeaseRow } {
    const { changes } = this.#acquire.run({ ...claim, epoch: this.#epoch });
    const [lease] = checkRows(this.#one.all(claim.name), leaseRow, 'leases');
    return { acquired: changes === 1, lease: lease as LeaseRow };
  }

  extend(lease: { name: string; token: number; now: number; ttlMs: number }): boolean {
    return this.#extend.run({ ...lease, epoch: this.#epoch }).changes === 1;
  }

  release(lease: { name: string; token: number }): boolean {
    return this.#release.run(lease).changes === 1;
  }
}
