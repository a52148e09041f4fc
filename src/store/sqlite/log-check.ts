import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { TroupeError } from '../../protocol/errors.ts';
import { APPLICATION_ID } from './migrations.ts';

/**
 * Does the write-ahead log beside a database belong to it?
 *
 * SQLite replays any log that has the right name: another database's, or one that was left when an older
 * backup was put back. It then opens without complaint and is a mixture. Every transaction of ours counts
 * itself in the row of the table `store`, the first of the file. So the log must carry our id, must not begin later than
 * right after what the file holds, and must not end before it.
 *
 * Formats: https://sqlite.org/fileformat2.html, §1.3 (header), §1.6 (b-tree leaf), §1.8 (pointer map), §2.1 (record),
 * §4 (log).
 */

interface StoreRow {
  readonly id: string;
  readonly commits: number;
}

const DATABASE_HEADER = 100;
const LOG_HEADER = 32;
const FRAME_HEADER = 24;
/** The first word of a log; the last bit says that its checksums are taken over big-endian words. */
const LOG_MAGIC = 0x377f0682;

/**
 * Never to be called while SQLite has the file open in this process: closing a descriptor drops all of the
 * process's POSIX locks on the file, SQLite's among them. https://sqlite.org/howtocorrupt.html §2.2
 * @throws {TroupeError} the log is not this file's
 */
export function refuseStrangeLog(path: string): void {
  const found = readFrom(path, readStoreRow);
  // Not one of ours, or damaged: the next who looks will say so.
  if (found === undefined) return;
  const { row, page } = found;
  const log = `${path}-wal`;
  const rows = readFrom(log, (read, size) => readLoggedRows(read, size, page));
  if (rows === undefined) return;
  const { first, last } = rows;
  if (first?.id !== row.id || last?.id !== row.id) {
    throw new TroupeError(
      'internal',
      `The log ${log} belongs to another database than ${path}. Nothing was changed. Move the log away, or put back the database it belongs to.`,
    );
  }
  if (first.commits > row.commits + 1 || last.commits < row.commits) {
    throw new TroupeError(
      'internal',
      `The log ${log} does not continue ${path}: the file is at commit ${row.commits}, the log holds commits ${first.commits} to ${last.commits}. Was a backup put back? Nothing was changed. To go on from the backup, move the log away.`,
    );
  }
}

type Read = (position: number, length: number) => Buffer;

function readFrom<T>(path: string, parse: (read: Read, size: number) => T): T {
  const file = openSync(path, 'r');
  try {
    const read = (position: number, length: number): Buffer => {
      const bytes = Buffer.alloc(length);
      readSync(file, bytes, 0, length, position);
      return bytes;
    };
    return parse(read, fstatSync(file).size);
  } finally {
    closeSync(file);
  }
}

function readStoreRow(read: Read): { readonly row: StoreRow; readonly page: number } | undefined {
  const header = read(0, DATABASE_HEADER);
  if (header.toString('latin1', 0, 16) !== 'SQLite format 3\0') return undefined;
  // 1 stands for 65 536, which does not fit.
  const pageSize = header.readUInt16BE(16) === 1 ? 65_536 : header.readUInt16BE(16);
  // Not zero: the file can be shrunk, and page 2 says what refers to which page.
  const page = header.readUInt32BE(52) === 0 ? 2 : 3;
  const row = parseStorePage(read((page - 1) * pageSize, pageSize));
  return row === undefined ? undefined : { row, page };
}

/**
 * Only what SQLite would replay counts: frames of this life of the log, up to the last commit, whose checksums follow
 * from each other. Behind them may be anything: a frame that was being written over an older one at a kill has half of
 * either.
 * @returns the first and the last row in the log, both missing if it is of no store at all; undefined: it holds no store
 * page, or SQLite will not read it
 */
function readLoggedRows(
  read: Read,
  size: number,
  storePage: number,
): { readonly first: StoreRow | undefined; readonly last: StoreRow | undefined } | undefined {
  if (size < LOG_HEADER) return undefined;
  const header = read(0, LOG_HEADER);
  const pageSize = header.readUInt32BE(8);
  const magic = header.readUInt32BE(0);
  if ((magic & ~1) >>> 0 !== LOG_MAGIC || pageSize < 512 || pageSize > 65_536) return undefined;
  const checksum = new Checksum((magic & 1) === 1);
  checksum.add(header.subarray(0, 24));
  if (!checksum.isAt(header, 24)) return undefined;
  const salts = header.subarray(16, 24);
  let first: Buffer | undefined;
  let last: Buffer | undefined;
  /** Of the transaction whose commit has not been met yet. */
  let firstOpen: Buffer | undefined;
  let lastOpen: Buffer | undefined;
  let strange = false;
  for (let at = LOG_HEADER; at + FRAME_HEADER + pageSize <= size; at += FRAME_HEADER + pageSize) {
    const frame = read(at, FRAME_HEADER + pageSize);
    const content = frame.subarray(FRAME_HEADER);
    const page = frame.readUInt32BE(0);
    if (page === 0 || !frame.subarray(8, 16).equals(salts)) break;
    checksum.add(frame.subarray(0, 8));
    checksum.add(content);
    if (!checksum.isAt(frame, 16)) break;
    if (page === storePage) {
      firstOpen ??= content;
      lastOpen = content;
    }
    if (page === 1 && content.readInt32BE(68) !== APPLICATION_ID) strange = true;
    const commits = frame.readUInt32BE(4) !== 0;
    if (!commits) continue;
    if (strange) return { first: undefined, last: undefined };
    first ??= firstOpen;
    last = lastOpen ?? last;
    firstOpen = undefined;
    lastOpen = undefined;
  }
  if (first === undefined || last === undefined) return undefined;
  return { first: parseStorePage(first), last: parseStorePage(last) };
}

/** A log's running checksum. Source: https://sqlite.org/fileformat2.html §4.2 */
class Checksum {
  readonly #bigEndian: boolean;
  #s0 = 0;
  #s1 = 0;

  constructor(bigEndian: boolean) {
    this.#bigEndian = bigEndian;
  }

  /** @param bytes a multiple of 8 */
  add(bytes: Buffer): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const littleEndian = !this.#bigEndian;
    let s0 = this.#s0;
    let s1 = this.#s1;
    for (let at = 0; at < bytes.length; at += 8) {
      s0 = (s0 + view.getUint32(at, littleEndian) + s1) | 0;
      s1 = (s1 + view.getUint32(at + 4, littleEndian) + s0) | 0;
    }
    this.#s0 = s0;
    this.#s1 = s1;
  }

  isAt(bytes: Buffer, at: number): boolean {
    return bytes.readInt32BE(at) === this.#s0 && bytes.readInt32BE(at + 4) === this.#s1;
  }
}

/** How many bytes an integer of each serial type has; types 8 and 9 are the numbers 0 and 1 themselves. */
const INTEGER_BYTES = [undefined, 1, 2, 3, 4, 6];

function parseStorePage(page: Buffer): StoreRow | undefined {
  const isLeafWithOneRow = page[0] === 0x0d && page.readUInt16BE(3) === 1;
  const cell = page.readUInt16BE(8);
  // Payload size and rowid take a byte each; then the record: its header's size, a type per column, values.
  const record = cell + 2;
  const values = record + (page[record] ?? 0);
  const id = page.toString('latin1', values, values + 38);
  if (!isLeafWithOneRow || !/^store-[0-9a-f]{32}$/.test(id)) return undefined;
  const type = page[values - 1] ?? 0;
  if (type === 8 || type === 9) return { id, commits: type - 8 };
  const bytes = INTEGER_BYTES[type];
  return bytes === undefined ? undefined : { id, commits: page.readIntBE(values + 38, bytes) };
}
