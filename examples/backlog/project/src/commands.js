import { caseCommand } from './commands/case.js';
import { slugifyCommand } from './commands/slugify.js';
import { wrapCommand } from './commands/wrap.js';

/** What the command line can do, sorted by name. */
export const commands = [caseCommand, slugifyCommand, wrapCommand];
