import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { assign, setup } from 'xstate';
import { checkStore, createTroupe, migrations } from '../src/index.ts';
import { temporaryStore } from './store/sqlite/temporary.ts';

const inbox = setup({
  types: {} as { context: { notes: string[] }; events: { type: 'inbox.add'; text: string } },
  actions: {
    add: assign({ notes: ({ context, event }) => [...context.notes, event.text] }),
  },
}).createMachine({
  id: 'inbox',
  context: { notes: [] },
  initial: 'open',
  states: { open: { on: { 'inbox.add': { actions: 'add' } } } },
});

/** The same in the next version: a state has another name, and notes are objects. */
const inbox2 = setup({
  types: {} as { context: { notes: { text: string }[] } },
}).createMachine({
  id: 'inbox',
  context: { notes: [] },
  initial: 'listening',
  states: { listening: {} },
});

const to2 = migrations<{ notes: string[] }>().to<{ notes: { text: string }[] }>((state) => ({
  ...state,
  value: 'listening',
  context: { notes: state.context.notes.map((text) => ({ text })) },
}));

async function storeWithInboxes(): Promise<string> {
  const file = temporaryStore();
  const troupe = await createTroupe({ store: file });
  for (const name of ['ada', 'bob']) {
    const address = await troupe.spawn(inbox, { id: `inbox/${name}` });
    await troupe.send(address, { type: 'inbox.add', text: 'hello' } as never);
  }
  await troupe.stop({ drain: true });
  return file;
}

test('an upgrade that cannot go on is found before it is made, and the store stays as it is', async () => {
  const file = await storeWithInboxes();
  const before = readFileSync(file);
  expect(await checkStore(file, { machines: [inbox] })).toMatchObject({ problems: [] });
  const unknown = await checkStore(file);
  expect(unknown.problems.map(({ address, problem }) => [address, problem])).toEqual([
    ['inbox/ada', 'No machine "inbox" is registered.'],
    ['inbox/bob', 'No machine "inbox" is registered.'],
  ]);
  const renamed = await checkStore(file, { machines: [inbox2] });
  expect(renamed.problems).toHaveLength(2);
  expect(renamed.problems[0]).toMatchObject({
    address: 'inbox/ada',
    machine: 'inbox',
    version: 1,
    problem: expect.stringContaining('"open"'),
  });
  const unmigrated = await checkStore(file, { machines: [[inbox2, { version: 2 }]] });
  expect(unmigrated.problems[0]?.problem).toContain('version 2 has no migrations');
  const migrated = await checkStore(file, { machines: [[inbox2, { migrations: to2 }]] });
  expect(migrated.problems).toEqual([]);
  expect(migrated.actors).toBeGreaterThan(2);
  expect(readFileSync(file).equals(before)).toBe(true);
});

test('it can be done while another runtime works on the store', async () => {
  const file = temporaryStore();
  const troupe = await createTroupe({ store: file });
  await troupe.spawn(inbox, { id: 'inbox/ada' });
  expect((await checkStore(file, { machines: [inbox] })).problems).toEqual([]);
  expect((await troupe.check()).problems).toEqual([]);
  await troupe.stop();
});

test('a store of an older version is brought up to date in the copy only', async () => {
  const file = temporaryStore();
  copyFileSync(
    fileURLToPath(new URL('./store/sqlite/fixtures/version-1.db', import.meta.url)),
    file,
  );
  const before = readFileSync(file);
  const found = await checkStore(file);
  expect(found.actors).toBeGreaterThan(0);
  expect(readFileSync(file).equals(before)).toBe(true);
});

test.each([
  { what: 'nothing', make: () => undefined, says: /There is no store .*state\.db\. Name the file/ },
  {
    what: 'something else',
    make: (file: string) => writeFileSync(file, 'notes\n'.repeat(1_000)),
    says: /state\.db.*not an SQLite database/,
  },
  {
    what: 'an empty file',
    make: (file: string) => writeFileSync(file, ''),
    says: /state\.db.*empty|state\.db.*not a store/,
  },
])('$what in its place is one clear error', async ({ make, says }) => {
  const file = temporaryStore();
  make(file);
  await expect(checkStore(file)).rejects.toThrow(says);
  await expect(checkStore(file)).rejects.not.toThrow(/troupe-check-/);
});
