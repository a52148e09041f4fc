import { expect, test } from 'vitest';
import { TroupeError } from '../../src/protocol/errors.ts';
import { createTroupe } from '../../src/troupe.ts';
import { temporaryStore } from '../store/sqlite/temporary.ts';

test('a full disk is no internal error', async () => {
  let full = false;
  const troupe = await createTroupe({
    store: temporaryStore(),
    faultPoint: (name) => {
      if (full && name === 'store.before-commit')
        throw new TroupeError('unavailable', 'the disk is full');
      return undefined;
    },
  });
  const failed = new Promise<Error>((resolve) => troupe.on('failed', resolve));
  troupe.agent('a', () => 1);
  troupe.gatekeeper('g', () => ({ accepted: true, evidence: [] }));
  full = true;
  await troupe.start({ id: 'r', tasks: [{ id: 't', agent: 'a', gatekeeper: 'g' }] }).catch(() => 0);
  expect(await failed).toMatchObject({ code: 'unavailable' });
  await troupe.stop().catch(() => 0);
});
