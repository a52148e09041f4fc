import { fc, test as property } from '@fast-check/vitest';
import { expect } from 'vitest';
import { untilLine } from '../../src/workspace/until-line.ts';

const MARK = '\u001emark';

// Much that begins like the mark and is not it.
const said = fc
  .array(
    fc.oneof(fc.constantFrom('\u001e', '\u001em', '\u001emar', 'mark', '\n', 'a'), fc.string()),
  )
  .map((parts) => Buffer.from(parts.join('')))
  .filter((bytes) => !bytes.includes(MARK));

property.prop([fc.array(fc.tuple(said, fc.nat(255)), { maxLength: 4 }), fc.array(fc.nat(40))])(
  'each program is heard as it spoke, in whatever pieces it comes',
  (programs, cuts) => {
    const stream = Buffer.concat(
      programs.map(([bytes, status]) => Buffer.concat([bytes, Buffer.from(`${MARK}${status}\n`)])),
    );
    const heard: [Buffer, number][] = [];
    let now: Buffer[] = [];
    const take = untilLine(
      MARK,
      (chunk) => now.push(Buffer.from(chunk)),
      (rest) => {
        heard.push([Buffer.concat(now), Number(rest)]);
        now = [];
      },
    );
    let from = 0;
    for (const length of cuts) {
      take(stream.subarray(from, from + length));
      from = Math.min(stream.length, from + length);
    }
    take(stream.subarray(from));
    expect(heard.map(([bytes, status]) => [bytes.toString('hex'), status])).toEqual(
      programs.map(([bytes, status]) => [bytes.toString('hex'), status]),
    );
    expect(now).toEqual([]);
  },
);
