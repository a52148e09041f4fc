import { expectString } from './expect.js';

/**
 * Makes the last part of a URL out of a title: small letters, digits and single hyphens.
 * @param {string} text
 */
export function slugify(text) {
  return expectString(text, 'text')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}
