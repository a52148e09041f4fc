// Plays every feature, rebuilding the host after each step, and prints what came of it as JSON.
import { playFeature } from './play-feature.ts';
import { FEATURES } from './statechart-features.ts';

const played = [];
for (const feature of FEATURES) played.push(await playFeature(feature, true));
process.stdout.write(JSON.stringify(played));
