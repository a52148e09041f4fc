import { readFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import { describe, expect, test } from 'vitest';
import { ConfigurationError, UnreadablePayloadError } from '../../../src/protocol/errors.ts';
import { MemoryStore } from '../../../src/store/memory/memory-store.ts';
import { aesGcmCodec } from '../../../src/store/payload/aes-gcm-codec.ts';
import type { PayloadCodec } from '../../../src/store/payload/codec.ts';
import { PackedStore } from '../../../src/store/payload/packed-store.ts';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import type { Batch } from '../../../src/store/store.ts';
import { describeStore } from '../contract.ts';
import {
  actor,
  attemptRow,
  batch,
  checkpoint,
  deadLetter,
  effect,
  message,
  runRow,
  step,
  taskRow,
  timer,
  turn,
} from '../rows.ts';
import { temporaryStore } from '../sqlite/temporary.ts';
import { prose } from './prose.ts';

const key = (letter: string): Buffer => Buffer.alloc(32, letter);
const v1 = aesGcmCodec({ keys: { v1: key('a') }, current: 'v1' });
const both = aesGcmCodec({ keys: { v1: key('a'), v2: key('b') }, current: 'v2' });
const v2 = aesGcmCodec({ keys: { v2: key('b') }, current: 'v2' });

async function open(path: string, codec?: PayloadCodec): Promise<PackedStore> {
  return new PackedStore(await openSqliteStore({ path }), codec === undefined ? {} : { codec });
}

describeStore('PackedStore with a codec over SqliteStore', {
  open: () => open(temporaryStore(), v1),
  survivesReopen: (closed) => open(closed.name, v1),
  packs: true,
});

const SECRET = 'correct horse battery staple';
const LONG = `${SECRET} ${prose(100_000)} ${SECRET}`;

/** A row of every kind, with the secret in every text of its actor. */
function secrets(text: string): Batch {
  const json = JSON.stringify({ text });
  return batch({
    actors: [actor()],
    checkpoints: [
      checkpoint({ eventJson: json, snapshotJson: json, pendingJson: json, detailsJson: json }),
    ],
    messages: [message({ messageJson: json })],
    timers: [timer({ actionJson: json })],
    effects: [effect({ inputJson: json })],
    steps: [step({ outcomeJson: json })],
    deadLetters: [deadLetter({ messageJson: json })],
    projections: [
      { table: 'runs', row: runRow({ detailsJson: json }) },
      { table: 'tasks', row: taskRow({ detailsJson: json }) },
      { table: 'attempts', row: attemptRow({ detailsJson: json }) },
    ],
    cuts: [
      {
        ...{ id: 'c', run: 'r1', at: 1, kind: 'manual', label: null, detailsJson: json },
        ...{ address: 'inbox/ada', prefix: 'inbox/ada/', keep: null },
      },
    ],
  });
}

/** Everything that `secrets` has written, as the store gives it back. */
async function everything(store: PackedStore): Promise<string> {
  const { messages, timers, effects } = await store.loadPending();
  return JSON.stringify([
    ...[messages, timers, effects, await store.loadActors(['inbox/ada'])],
    ...[await store.listCheckpoints('inbox/ada'), await store.loadSteps('inbox/ada#fetch')],
    ...[await store.listDeadLetters(), await store.listRuns(), await store.listTasks('r1')],
    ...[await store.listAttempts('r1', 't1'), await store.listCuts('r1'), await store.loadCut('c')],
  ]);
}

/** 4 of the checkpoint, its snapshot again, 3 that wait, 3 in the cut, 2 of the cut, step, letter, 3 rows. */
const TEXTS = 4 + 1 + 3 + 3 + 2 + 1 + 1 + 3;
const count = (text: string, part: string): number => text.split(part).length - 1;

describe.each([
  ['short', SECRET, 1],
  ['long', LONG, 2],
])('%s texts', (_, text, times) => {
  test('nothing of them is in the file in the clear, and all of it comes back', async () => {
    const path = temporaryStore();
    const store = await open(path, v1);
    await store.commit(secrets(text));
    expect(count(await everything(store), SECRET)).toBe(TEXTS * times);
    await store.close();
    const again = await open(path, v1);
    expect(count(await everything(again), SECRET)).toBe(TEXTS * times);
    await again.close();
    for (const file of [path, `${path}-wal`]) {
      const bytes = readFileSync(file, { flag: 'a+' });
      expect(bytes.includes('horse')).toBe(false);
      expect(bytes.includes(Buffer.from(SECRET).toString('base64').slice(4, 20))).toBe(false);
    }
  });

  test('rows from before the codec, and under an older key, stay readable; reencrypt brings them up to date', async () => {
    const path = temporaryStore();
    const plain = await open(path);
    await plain.commit(secrets(text));
    const before = await everything(plain);
    await plain.close();
    const first = await open(path, v1);
    expect(await everything(first)).toBe(before);
    await first.commit(batch(turn('inbox/ada', 1, text)));
    const { rewritten } = await first.reencrypt();
    // The snapshot of the second turn is under it already.
    expect(rewritten).toBe(TEXTS - 2);
    expect(await first.reencrypt()).toMatchObject({ rewritten: 0 });
    const at1 = await everything(first);
    await first.close();
    const second = await open(path, both);
    expect(await everything(second)).toBe(at1);
    expect(await second.reencrypt()).toMatchObject({ rewritten: TEXTS - 1 });
    await second.close();
    // The old key is not needed any more, and nothing of it is left.
    const last = await open(path, v2);
    expect(await everything(last)).toBe(at1);
    await last.close();
    const db = new Database(path, { readonly: true });
    // By its beginning alone: what is encrypted may well contain the letters "v1". A long text is a list of chunks.
    const texts = db.prepare<[], string>('SELECT snapshot_json FROM checkpoints').pluck().all();
    const beginnings = new Set(texts.map((stored) => stored.slice(0, 4)));
    expect([...beginnings]).toEqual([times === 2 ? '={"l' : '~v2:']);
    const chunks = db.prepare<[], Buffer>('SELECT data FROM chunk_data').pluck().all();
    expect(chunks.every((data) => data.subarray(2, 4).toString() === 'v2')).toBe(true);
    expect(chunks.length > 0).toBe(times === 2);
    db.close();
  });

  test('without its key a text is refused, by name of row and key; an actor says so', async () => {
    const path = temporaryStore();
    const store = await open(path, v1);
    await store.commit(secrets(text));
    await store.close();
    for (const [codec, known] of [
      [v2, 'there is no such key (known: "v2")'],
      [undefined, 'no key was given'],
    ] as const) {
      const wrong = await open(path, codec);
      const refused = wrong.listDeadLetters();
      await expect(refused).rejects.toBeInstanceOf(UnreadablePayloadError);
      await expect(refused).rejects.toThrow(
        `The dead letter m1 to inbox/ada cannot be read: it is encrypted under the key "v1", and ${known}.`,
      );
      await expect(wrong.loadPending()).rejects.toMatchObject({
        code: 'internal',
        context: { row: 'message m1 to inbox/ada', keyId: 'v1' },
      });
      const [ada] = await wrong.loadActors(['inbox/ada']);
      expect(ada).toMatchObject({ address: 'inbox/ada', snapshotJson: '' });
      expect(ada?.unreadable?.message).toContain('checkpoint 0 of inbox/ada');
      await wrong.close();
    }
  });
});

test('a text that is changed or moved to another column is refused', async () => {
  const path = temporaryStore();
  const store = await open(path, v1);
  await store.commit(secrets(SECRET));
  await store.close();
  const db = new Database(path);
  db.exec(`UPDATE timers SET action_json = (SELECT message_json FROM messages)`);
  db.exec(
    `UPDATE runs SET details_json = substr(details_json, 1, 20) || 'AAAA' || substr(details_json, 25)`,
  );
  db.exec(`UPDATE tasks SET details_json = '~v1:'`);
  db.close();
  const again = await open(path, v1);
  await expect(again.loadPending()).rejects.toThrow(
    'The timer "wake" of inbox/ada (key "v1") cannot be read: it was changed, or encrypted with another key of the same name. It is damaged',
  );
  await expect(again.listRuns()).rejects.toThrow('row of run r1 (key "v1") cannot be read');
  await expect(again.listTasks('r1')).rejects.toThrow('row of task r1/t1 (key "v1")');
  await again.close();
});

test('a damaged, missing or exchanged chunk is named with its checkpoint; the rest can be read', async () => {
  const path = temporaryStore();
  const store = await open(path);
  await store.commit(batch(turn('inbox/ada', 0, prose(50_000, 1))));
  await store.commit(batch(turn('inbox/bob', 0, prose(50_000, 2))));
  await store.commit(batch(turn('inbox/cleo', 0, prose(50_000, 3))));
  await store.close();
  const db = new Database(path);
  const lists = db.prepare<[string], string>(
    `SELECT snapshot_json ->> '$' FROM (SELECT substr(snapshot_json, 2) AS snapshot_json FROM checkpoints WHERE address = ?)`,
  );
  const chunkOf = (address: string): number => {
    const [list] = (JSON.parse(lists.pluck().get(address) as string) as { lists: string[] }).lists;
    return db
      .prepare(
        `SELECT id FROM chunks WHERE name = (SELECT chunks ->> '$[1]' FROM chunk_lists WHERE name = ?)`,
      )
      .pluck()
      .get(list) as number;
  };
  const damage = (address: string, sql: string): void => {
    db.prepare(sql).run(chunkOf(address));
  };
  damage('inbox/ada', 'DELETE FROM chunk_data WHERE id = ?');
  damage('inbox/bob', `UPDATE chunk_data SET data = CAST(x'00' || 'other' AS BLOB) WHERE id = ?`);
  db.close();
  const again = await open(path);
  await expect(again.listCheckpoints('inbox/ada')).rejects.toThrow(
    /^The checkpoint 0 of inbox\/ada cannot be read: the chunk .{22} is missing\. It is damaged/,
  );
  await expect(again.listCheckpoints('inbox/bob')).rejects.toThrow(/holds something else/);
  const actors = await again.loadActors(['inbox/ada', 'inbox/bob', 'inbox/cleo']);
  expect(actors.map(({ unreadable }) => unreadable?.message.slice(0, 31))).toEqual([
    'The checkpoint 0 of inbox/ada c',
    'The checkpoint 0 of inbox/bob c',
    undefined,
  ]);
  await again.close();
});

test('while texts are rewritten, everything else goes on', async () => {
  const path = temporaryStore();
  const plain = await open(path);
  const texts = Array.from({ length: 300 }, (_, seq) =>
    seq % 50 === 0 ? prose(60_000, seq) : 'x',
  );
  await plain.commit(
    batch({
      actors: [actor({ seq: 299 })],
      checkpoints: texts.map((snapshotJson, seq) => checkpoint({ seq, snapshotJson })),
    }),
  );
  await plain.close();
  const store = await open(path, v1);
  let done = false;
  const rewriting = store.reencrypt().then((result) => {
    done = true;
    return result;
  });
  let seq = 300;
  for (; !done; seq++) await store.commit(batch(turn('inbox/ada', seq, prose(60_000, seq))));
  expect(await rewriting).toMatchObject({ rewritten: 300 });
  expect(seq).toBeGreaterThan(301);
  const stored = await store.listCheckpoints('inbox/ada');
  expect(stored).toHaveLength(seq);
  expect(stored[250]?.snapshotJson).toBe(prose(60_000, 250));
  await store.close();
});

test('a codec with an impossible key id, and rewriting without a codec or a disk, are refused', async () => {
  expect(() => new PackedStore(new MemoryStore(), { codec: { ...v1, keyId: 'a b' } })).toThrow(
    ConfigurationError,
  );
  await expect(new PackedStore(new MemoryStore()).reencrypt()).rejects.toThrow('There is no codec');
  await expect(new PackedStore(new MemoryStore(), { codec: v1 }).reencrypt()).rejects.toThrow(
    'keeps nothing on a disk',
  );
});

describe('golden: what is stored today is read for ever', () => {
  const stored = {
    block: '~v1:8uPF3vsnQxlnlk8kyJp6kp/jp4Agurkt1BUCBp66vM+PW5wqQIBDI3ovMx0dhZ7/',
    escaped: '~~=x',
  };
  test('texts', async () => {
    const store = new MemoryStore();
    const packed = new PackedStore(store, { codec: v1 });
    await store.commit(batch(turn('inbox/ada', 0, stored.block)));
    await store.commit(batch(turn('inbox/ada', 1, stored.escaped)));
    const texts = (await packed.listCheckpoints('inbox/ada')).map((one) => one.snapshotJson);
    expect(texts).toEqual(['{"stored":"in 0.2"}', '=x']);
  });

  test('long texts', async () => {
    const store = new MemoryStore();
    await new PackedStore(store).commit(batch(turn('inbox/ada', 0, prose(40_000))));
    const [checkpointRow] = await store.listCheckpoints('inbox/ada');
    expect(checkpointRow?.snapshotJson).toMatchInlineSnapshot(
      `"={"lists":["4-OsL76IJ1bEyV_sd_X6HK","EDtvsJpkNiprlPnfkeNJJr","8Fzkw8p5FE3ZTt8VTWwM-h"],"length":40000}"`,
    );
    expect([...store.data.chunks.keys()]).toMatchInlineSnapshot(`
      [
        "M_I4jOcq5Qwiqgj5RDuCgF",
        "acGitsHEeJPLt4ClV4j-QC",
        "bO-X7DIW7JGskfHu4LUWjk",
        "iUDeApeetrLQkcNJfXrX4L",
        "C1Pk8NxY_NySariUl_R46m",
        "MbBOXjBcFFlm1dAEy9K70X",
        "B2QCfNUdbNQPNM_TLH2XX0",
        "kOV6YZuy0zIsMNbP-PRNw7",
        "9V7qa1hpWis4X6wqeuBZD1",
        "sVho07-jlc5HQNXzV10Nv0",
      ]
    `);
    expect([...store.data.chunkLists]).toMatchInlineSnapshot(`
      [
        [
          "4-OsL76IJ1bEyV_sd_X6HK",
          [
            "M_I4jOcq5Qwiqgj5RDuCgF",
            "acGitsHEeJPLt4ClV4j-QC",
            "bO-X7DIW7JGskfHu4LUWjk",
            "iUDeApeetrLQkcNJfXrX4L",
            "C1Pk8NxY_NySariUl_R46m",
          ],
        ],
        [
          "EDtvsJpkNiprlPnfkeNJJr",
          [
            "MbBOXjBcFFlm1dAEy9K70X",
            "B2QCfNUdbNQPNM_TLH2XX0",
          ],
        ],
        [
          "8Fzkw8p5FE3ZTt8VTWwM-h",
          [
            "kOV6YZuy0zIsMNbP-PRNw7",
            "9V7qa1hpWis4X6wqeuBZD1",
            "sVho07-jlc5HQNXzV10Nv0",
          ],
        ],
      ]
    `);
  });
});

test('a store that packs is not packed once more', async () => {
  const packed = new PackedStore(new MemoryStore());
  expect(() => new PackedStore(packed)).toThrow('cannot be packed once more');
  // Nor by way of a store around it.
  const around = new PackedStore({
    ...{ name: 'around', commit: (rows: Batch) => packed.commit(rows) },
  } as unknown as MemoryStore);
  await expect(around.commit(batch(turn('inbox/ada', 0, prose(50_000))))).rejects.toThrow(
    'that another one has packed',
  );
});
