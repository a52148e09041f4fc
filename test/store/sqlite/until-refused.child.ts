// Commits until a commit is refused, then once more. Says what happened. Arguments: path, and a file that is
// deleted after the refusal to make room, or nothing.
import { rmSync, writeFileSync } from 'node:fs';
import { openSqliteStore } from '../../../src/store/sqlite/sqlite-store.ts';
import { batch, turn } from '../rows.ts';

const [, , path = '', ballast = ''] = process.argv;
const say = (line: string): unknown => process.stdout.write(`${line.replaceAll('\n', ' ')}\n`);
if (ballast !== '') writeFileSync(ballast, Buffer.alloc(2_000_000));
const store = await openSqliteStore({ path, onWarning: say });
const commit = (seq: number): Promise<string> =>
  store.commit(batch(turn('inbox/ada', seq, 'x'.repeat(20_000)))).then(
    () => 'stored',
    (error: { code: string; message: string }) => `${error.code} ${error.message}`,
  );
let seq = 0;
let outcome = 'stored';
while (outcome === 'stored' && seq < 1_000) {
  outcome = await commit(seq);
  if (outcome === 'stored') seq++;
}
say(`acknowledged ${seq}`);
say(outcome);
if (ballast !== '') rmSync(ballast);
say(await commit(seq));
await store.close().catch((error: Error) => say(`closing: ${error.message}`));
if (ballast !== '') {
  const again = await openSqliteStore({ path });
  say(`found ${(await again.listCheckpoints('inbox/ada')).length}`);
  await again.close();
}
