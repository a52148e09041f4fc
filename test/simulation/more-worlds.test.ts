import { describe } from 'vitest';
import { livesThroughWorlds } from './worlds.ts';

describe('the whole runtime, simulated', () => {
  livesThroughWorlds(20_261_130);
});
