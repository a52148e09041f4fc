import type { TaskState } from '../../index.ts';
import type { Style } from './text.ts';

/** How a state looks: a mark that needs no colour to be told from the others, and a colour. */
interface StateLook {
  readonly mark: string;
  readonly ascii: string;
  readonly style: Style;
  /** In words, as people say it. */
  readonly words: string;
}

const LOOKS: Readonly<Record<TaskState, StateLook>> = {
  staged: { mark: '·', ascii: '.', style: 'dim', words: 'staged' },
  waiting: { mark: '·', ascii: '.', style: 'dim', words: 'waiting' },
  ready: { mark: '○', ascii: 'o', style: 'dim', words: 'ready' },
  preparing: { mark: '◔', ascii: '>', style: 'cyan', words: 'preparing' },
  working: { mark: '◑', ascii: '>', style: 'cyan', words: 'working' },
  verifying: { mark: '◕', ascii: '>', style: 'blue', words: 'verifying' },
  fixing: { mark: '◒', ascii: '>', style: 'cyan', words: 'being mended' },
  retrying: { mark: '↻', ascii: '~', style: 'yellow', words: 'retrying' },
  awaitingInput: { mark: '?', ascii: '?', style: 'magenta', words: 'awaiting input' },
  awaitingApproval: { mark: '?', ascii: '?', style: 'magenta', words: 'awaiting approval' },
  escalated: { mark: '!', ascii: '!', style: 'magenta', words: 'escalated' },
  blocked: { mark: '✗', ascii: 'x', style: 'red', words: 'blocked' },
  paused: { mark: '‖', ascii: '=', style: 'yellow', words: 'paused' },
  cancelling: { mark: '–', ascii: '-', style: 'dim', words: 'cancelling' },
  cancelled: { mark: '–', ascii: '-', style: 'dim', words: 'cancelled' },
  done: { mark: '✓', ascii: '+', style: 'green', words: 'done' },
};

export const lookOf = (state: TaskState): StateLook => LOOKS[state];

export const markOf = (state: TaskState, unicode: boolean): string =>
  unicode ? LOOKS[state].mark : LOOKS[state].ascii;
