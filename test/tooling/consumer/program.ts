// What somebody else's program does with the installed package: only what this file uses is known to
// survive packing. Extend it with every public name that a first program would touch.
import { type ErrorCode, EXIT_CODES, fromFailure, TroupeError, ValidationError } from 'troupe';

const code: ErrorCode = 'validation';
const error = fromFailure(new ValidationError('Expected a task, got nothing.').toFailure());
if (!(error instanceof TroupeError) || error.code !== code) throw new Error('not a TroupeError');
process.stdout.write(`${error.message} (${error.code}, exit code ${EXIT_CODES[code]})\n`);
