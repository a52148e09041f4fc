import { type Feature, type Step, sinkMachine } from './statechart-features.ts';
import { Outside, World } from './world.ts';

/** Plays the story; with `rebuilt`, the host is destroyed and rebuilt from the store after every step. */
export async function playFeature(feature: Feature, rebuilt: boolean) {
  const outside = new Outside();
  const world = new World(
    { sink: sinkMachine, ...feature.machines(outside) },
    { maxEffectRestarts: 1000 },
  );
  const again = async (): Promise<void> => {
    if (rebuilt) await world.reopen();
  };
  await world.open();
  await world.create(['sink/1', 'sink'], ['subject/1', 'subject', feature.input ?? null]);
  await again();
  for (const step of feature.story) {
    await take(world, outside, step);
    await again();
  }
  const addresses = [...world.data.actors.keys()].sort();
  return {
    subject: world.state('subject/1'),
    status: world.data.actors.get('subject/1')?.status,
    sent: world.context('sink/1')['got'],
    emitted: world.facts('emitted').map(({ event }) => event),
    deadLetters: world.data.deadLetters.map(({ address, reason }) => ({ address, reason })),
    // As text: not one byte may differ.
    stored: addresses.map((address) => `${address} ${world.stored(address)}`),
    left: {
      messages: world.data.messages.size,
      timers: [...world.data.timers.values()].reduce((sum, timers) => sum + timers.size, 0),
      effects: [...world.data.effects.values()].reduce((sum, effects) => sum + effects.size, 0),
    },
  };
}

async function take(world: World, outside: Outside, step: Step): Promise<void> {
  if ('send' in step) await world.send('subject/1', { type: step.send, ...step.with });
  else if ('afterMs' in step) await world.advance(step.afterMs);
  else if ('finish' in step) outside.last(step.finish).finish(step.output);
  else outside.last(step.fail).fail(new Error(step.message));
  await world.settle();
}
