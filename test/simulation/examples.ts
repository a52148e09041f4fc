import type { Scenario } from './scenario.ts';

/** Scenarios that once failed, as small as they became, each with what was wrong. They are lived through every time. */
export const examples: readonly { readonly found: string; readonly scenario: Scenario }[] = [];
