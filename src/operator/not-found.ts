import { NotFoundError } from '../index.ts';
import { suggestion } from './config-problems.ts';

/**
 * The error for a name that nothing has.
 * @param what the sentence's end: `task parser in run main`
 * @param known the names there are, and in `choices` what they are called: `the tasks are`
 */
export function notFound(
  what: string,
  word: string,
  known: readonly string[],
  choices: string,
): NotFoundError {
  const hint = suggestion(word, known, choices);
  return new NotFoundError(`There is no ${what}${hint}${hint.endsWith('?') ? '' : '.'}`);
}
