import type { Address } from '../protocol/address.ts';

/** What the name of a timer begins with that is the deadline of a request; its id follows. */
export const REQUEST = 'request:';

/**
 * The id that the actor gave a request, from the request's correlation: address, turn, id. The turn is in it
 * because an id is used again: the answer to the first use must not pass for one to the second.
 */
export function requestOf(address: Address, correlation: string): string | undefined {
  if (!correlation.startsWith(address) || correlation[address.length] !== '!') return undefined;
  return correlation.slice(correlation.indexOf('!', address.length + 1) + 1);
}
