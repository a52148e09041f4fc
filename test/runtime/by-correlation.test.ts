import { test as property } from '@fast-check/vitest';
import fc from 'fast-check';
import { expect } from 'vitest';
import { ByCorrelation, type Linked } from '../../src/runtime/by-correlation.ts';

class Entry implements Linked {
  readonly correlation: string;
  next: this | undefined = undefined;

  constructor(correlation: string) {
    this.correlation = correlation;
  }
}

// Few numbers, so that they come again; some differ by a multiple of the number of buckets; some are not of the host's.
const correlation = fc.oneof(
  fc.integer({ min: 0, max: 200 }).map((n) => `app/client!run.${n}`),
  fc.integer({ min: 0, max: 5 }).map((n) => `app/client!run.${n * 65_536}`),
  fc.constantFrom('', 'ä', 'app/client!other.7', 'app/client!run.99999999999999999999', '7'),
);
const steps = fc.array(
  fc.record({ correlation, does: fc.constantFrom('add', 'add', 'add', 'delete', 'clear') }),
  { maxLength: 300 },
);

property.prop([steps])('a table by correlation finds what a Map finds', (all) => {
  const table = new ByCorrelation<Entry>();
  const model = new Map<string, Entry>();
  for (const step of all) {
    if (step.does === 'add') {
      const entry = new Entry(step.correlation);
      const replaced = model.get(step.correlation);
      table.add(entry);
      model.set(step.correlation, entry);
      // It is there no more, and takes nothing with it.
      if (replaced !== undefined) table.delete(replaced);
    } else {
      const gone = step.does === 'clear' ? [...model.values()] : [model.get(step.correlation)];
      for (const entry of gone) {
        if (entry === undefined) continue;
        table.delete(entry);
        model.delete(entry.correlation);
      }
    }
    expect(table.size).toBe(model.size);
    expect(table.get(step.correlation)).toBe(model.get(step.correlation));
  }
  expect(new Set(table.all())).toEqual(new Set(model.values()));
});
