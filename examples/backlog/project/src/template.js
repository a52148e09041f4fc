import { expectObject, expectString } from './expect.js';

/**
 * Fills in a template: `{{ name }}` and `{{ user.name }}`.
 * @param {string} template
 * @param {Record<string, unknown>} data
 * @throws {RangeError} a placeholder has no value
 */
export function render(template, data) {
  expectString(template, 'template');
  expectObject(data, 'data');
  return template.replace(/\{\{\s*([\w.]+)\s*\}\}/g, (_, path) => String(lookUp(data, path)));
}

function lookUp(data, path) {
  let value = data;
  for (const key of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) {
      throw new RangeError(`The template asks for ${path}, which the data does not have`);
    }
    value = value[key];
  }
  return value;
}
