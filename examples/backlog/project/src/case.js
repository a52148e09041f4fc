import { expectString } from './expect.js';

/**
 * The words of a name in any case: `'backgroundColor'` has two.
 * @param {string} name
 */
export function splitWords(name) {
  return expectString(name, 'name')
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .split(/[^A-Za-z0-9]+/)
    .filter(Boolean)
    .map((word) => word.toLowerCase());
}

/** @param {string} name */
export function kebabCase(name) {
  return splitWords(name).join('-');
}

/** @param {string} name */
export function snakeCase(name) {
  return splitWords(name).join('_');
}

/** @param {string} name */
export function camelCase(name) {
  return splitWords(name)
    .map((word, index) => (index === 0 ? word : capitalize(word)))
    .join('');
}

/** @param {string} name */
export function titleCase(name) {
  return splitWords(name).map(capitalize).join(' ');
}

function capitalize(word) {
  return word[0].toUpperCase() + word.slice(1);
}
