import { History, seededRandom } from './history.ts';
import {
  FICTION,
  type MadeBad,
  type MadeChange,
  type MadeWorkload,
  START,
  withLine,
} from './workload.ts';

export interface DataOptions {
  readonly changes: number;
  readonly files: number;
  readonly seed: number;
}

const ROWS = 20;

/**
 * A repository of tables: `key<TAB>value<TAB>reference`. The verification wants every row to be whole, every key to be
 * there once, and every reference to lead to a key. Changes to one table depend on each other in their order; one that
 * adds a reference depends on the one that adds the key. Beside the tables there are notes that nothing verifies.
 */
export function dataWorkload({ changes, files, seed }: DataOptions): MadeWorkload {
  const random = seededRandom(seed);
  const history = new History();
  const table = (index: number): string =>
    `data/${String(index % 50).padStart(2, '0')}/table-${String(index).padStart(4, '0')}.tsv`;
  const start: Record<string, string> = { 'README.md': 'Tables, and notes about them.\n' };
  for (let index = 0; index < files; index++) {
    const rows = Array.from({ length: ROWS }, (_, row) => `t${index}-r${row}\t${random(1000)}\t-`);
    start[table(index)] = `${rows.join('\n')}\n`;
  }
  const notes = Array.from({ length: 12 }, (_, index) => `notes/note-${index}.md`);
  for (const [index, note] of notes.entries()) {
    start[note] = `Note ${index}.\n${'It says what nobody verifies.\n'.repeat(5)}`;
  }
  history.commit(START, 'The tables as they are', start);

  const features: MadeChange[] = [];
  /** The last change of each table. */
  const lastOf = new Map<number, string>();
  /** Keys that changes have added. */
  const added: { readonly key: string; readonly by: string }[] = [];
  /** The first change of each table that a race can be about: it needs nothing else. */
  let free: { readonly id: string; readonly index: number; readonly row: number } | undefined;
  for (let n = 1; n <= changes; n++) {
    const id = `change-${String(n).padStart(4, '0')}`;
    const index = n === 1 ? 0 : random(files);
    const file = table(index);
    const dependsOn = new Set<string>();
    const before = lastOf.get(index);
    if (before !== undefined) dependsOn.add(before);
    let title: string;
    const text = history.read(file);
    if (n % 3 === 0) {
      const key = `added-${n}`;
      title = `Add the row ${key} to table ${index}`;
      history.commit(id, title, { [file]: `${text}${key}\t${random(1000)}\t-\n` });
      added.push({ key, by: id });
    } else if (n % 3 === 1 || added.length === 0) {
      const row = random(ROWS - 8) + 4;
      const lines = text.split('\n');
      const line = lines[row] ?? '';
      title = `Correct the row ${line.split('\t')[0]} of table ${index}`;
      const fields = line.split('\t');
      history.commit(id, title, {
        [file]: withLine(text, line, `${fields[0]}\t${1000 + n}\t${fields[2]}`),
      });
      if (before === undefined) free ??= { id, index, row };
    } else {
      const target = added[added.length - 1 - random(Math.min(3, added.length))];
      if (target === undefined) throw new Error('Expected a key that was added before.');
      const key = `refers-${n}`;
      title = `Refer to ${target.key} in table ${index}`;
      history.commit(id, title, { [file]: `${text}${key}\t${random(1000)}\t${target.key}\n` });
      dependsOn.add(target.by);
    }
    lastOf.set(index, id);
    features.push({ id, title, dependsOn: [...dependsOn] });
  }
  if (free === undefined) throw new Error('Expected a change that depends on no other.');

  const bad: MadeBad[] = [];
  /** A bad change of a table at the tip, after the last good one of it. */
  const badTable = (
    id: string,
    index: number,
    edit: (text: string) => string,
    facts: Pick<MadeBad, 'kind' | 'stage' | 'outputContains'>,
  ): void => {
    const file = table(index);
    history.aside(id, facts.kind, { [file]: edit(history.read(file)) });
    const last = lastOf.get(index);
    bad.push({ id, title: facts.kind, dependsOn: last === undefined ? [] : [last], ...facts });
  };
  const rowOf = (text: string, row: number): string => text.split('\n')[row] ?? '';
  const other = (offset: number): number => (free.index + offset) % files;
  badTable('bad-row', other(1), (text) => withLine(text, rowOf(text, 2), 'half a row'), {
    kind: 'syntax error',
    stage: 'verify',
    outputContains: 'half a row',
  });
  badTable('bad-reference', other(2), (text) => `${text}lonely\t1\tnobody\n`, {
    kind: 'source of a change dropped so that its tests fail',
    stage: 'verify',
    outputContains: 'nobody',
  });
  badTable('bad-duplicate', other(3), (text) => `${text}${rowOf(text, 0)}\n`, {
    kind: 'regression',
    stage: 'verify',
    outputContains: 'twice',
  });
  // The same row, changed from the start, where it is another by the time it is applied.
  const twin = (id: string, dependsOn: readonly string[]): void => {
    const file = table(free.index);
    const text = start[file] ?? '';
    const line = rowOf(text, free.row);
    const changed = withLine(text, line, `${line.split('\t')[0]}\t999999\t-`);
    history.aside(id, 'Correct the same row in another way', { [file]: changed }, START);
    bad.push({
      id,
      kind: 'twin on the same lines',
      title: 'Correct the same row in another way',
      dependsOn,
      stage: 'apply_or_merge',
    });
  };
  twin('bad-twin', [free.id]);
  twin('race-twin', []);
  bad.push({
    id: 'bad-again',
    kind: 'already merged',
    title: 'What is merged already',
    dependsOn: [free.id],
    stage: 'apply',
    patchOf: free.id,
  });
  // It is made of a table that has never been like this.
  const fiction = `${Array.from({ length: 9 }, (_, row) => `fiction-${row}\t1\t-`).join('\n')}\n`;
  history.aside(FICTION, 'A table that never was', { [table(other(4))]: fiction });
  history.aside(
    'bad-context',
    'Correct what is not there',
    { [table(other(4))]: withLine(fiction, 'fiction-4\t1\t-', 'fiction-4\t2\t-') },
    FICTION,
  );
  bad.push({
    id: 'bad-context',
    kind: 'wrong context',
    title: 'Correct what is not there',
    dependsOn: [],
    stage: 'apply',
    outputContains: 'patch failed',
  });
  const policy = (
    id: string,
    kind: string,
    files: Readonly<Record<string, string | null>>,
  ): void => {
    history.aside(id, kind, files);
    bad.push({ id, kind, title: kind, dependsOn: [], stage: 'policy', verifyGreen: true });
  };
  const [first = '', second = ''] = notes;
  policy('bad-markers', 'conflict markers', {
    [first]: `<<<<<<< ours\n${history.read(first)}=======\nAnother note.\n>>>>>>> theirs\n`,
  });
  policy('bad-nul', 'NUL bytes', { [second]: `${history.read(second)}\0\0\0\n` });
  policy('bad-emptied', 'emptied files', Object.fromEntries(notes.slice(2, 7).map((n) => [n, ''])));
  policy('bad-deletion', 'mass deletion', Object.fromEntries(notes.map((n) => [n, null])));

  // Wrong attempts of good changes, each made where the good one was.
  const attempts = new Map<string, readonly string[]>();
  const sequence = (feature: MadeChange | undefined, wrong: readonly string[]): void => {
    if (feature !== undefined) attempts.set(feature.id, wrong);
  };
  history.aside(
    'attempt-red',
    'A row that is not whole',
    {
      [table(other(5))]: withLine(
        start[table(other(5))] ?? '',
        rowOf(start[table(other(5))] ?? '', 3),
        'a wrong attempt',
      ),
    },
    START,
  );
  history.aside(
    'attempt-context',
    'Of a table that never was',
    { [table(other(4))]: withLine(fiction, 'fiction-3\t1\t-', 'fiction-3\t2\t-') },
    FICTION,
  );
  // Changes of other tables than the wrong ones are about, so that what was wrong is not mended by another.
  const avoided = new Set([lastOf.get(other(4)), lastOf.get(other(5))]);
  const candidates = features.filter(({ id }) => !avoided.has(id));
  sequence(candidates[0], ['attempt-red']);
  sequence(candidates[1], ['attempt-context', 'attempt-red']);

  // A reference to a key that another change adds, and that one: in the wrong order.
  const referring = features.filter(({ title }) => title.startsWith('Refer')).slice(0, 3);
  const needed = new Set(referring.map(({ id }) => id));
  for (const id of needed) {
    for (const dependency of features.find((one) => one.id === id)?.dependsOn ?? []) {
      needed.add(dependency);
    }
  }
  const undeclared = features.flatMap(({ id }) => (needed.has(id) ? [id] : [])).reverse();
  return {
    name: `data-${changes}`,
    language: 'data',
    history,
    features,
    bad,
    attempts,
    race: { feature: free.id, bad: 'race-twin' },
    undeclared,
    scripts: { 'verify.sh': VERIFY },
    timeoutS: 60,
  };
}

// A table that an attempt touches may lie anywhere below data; names hold no spaces.
const VERIFY = `#!/bin/sh
# Every row is whole, every key is there once, every reference leads to a key.
[ -d data ] || { echo 'no tables'; exit 95; }
find data -type f -name '*.tsv' -print | LC_ALL=C sort | xargs cat | LC_ALL=C awk -F '\\t' '
  NF != 3 || $2 !~ /^[0-9]+$/ { print "not whole: " $0; fail++ }
  $1 in seen { print "twice: " $1; fail++ }
  { seen[$1] = 1; if ($3 != "-") refers[$1] = $3 }
  END {
    for (key in refers) if (!(refers[key] in seen)) { print key " refers to " refers[key] ", which is not there"; fail++ }
    if (NR == 0) { print "no rows"; exit 95 }
    printf "REALREPO_RESULT {\\"repo\\":\\"data\\",\\"exit\\":%d,\\"tests\\":%d,\\"pass\\":%d,\\"fail\\":%d}\\n", (fail > 0), NR, NR - fail, fail
    exit (fail > 0)
  }'
`;
