import { entities } from './entities.js';
import { expectString } from './expect.js';

const nameOf = new Map(entities);
const charOf = new Map(entities.map(([char, name]) => [name, char]));

/**
 * Replaces the characters that HTML has a name for: `<` becomes `&lt;`.
 * @param {string} text
 */
export function escapeHtml(text) {
  return Array.from(expectString(text, 'text'), (char) =>
    nameOf.has(char) ? `&${nameOf.get(char)};` : char,
  ).join('');
}

/**
 * The way back. Names it does not know stay as they are.
 * @param {string} html
 */
export function unescapeHtml(html) {
  return expectString(html, 'html').replace(/&(\w+);/g, (whole, name) => charOf.get(name) ?? whole);
}
