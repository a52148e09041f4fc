import path from 'node:path';

/** Troupe's state directory in a scratch directory. */
export const stateOf = (directory: string): string => path.join(directory, 'state');

/** The record of all processes that work in a scratch directory: the replay's own and Troupe's. */
export const processesOf = (directory: string): string =>
  path.join(stateOf(directory), 'processes');
