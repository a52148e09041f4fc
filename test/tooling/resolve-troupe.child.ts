// Loaded with `node --import` before a page's program: `troupe` is then this repository's source, so the
// pages can be run without a build and say the name that a user writes.
import { registerHooks } from 'node:module';

const source = new URL('../../src/index.ts', import.meta.url).href;

registerHooks({
  resolve: (specifier, context, nextResolve) =>
    nextResolve(specifier === 'troupe' ? source : specifier, context),
});
