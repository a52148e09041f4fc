// Checks of arguments. Every public function refuses nonsense the same way: with a TypeError that
// says what was expected and what came.

function describe(value) {
  if (typeof value === 'string') return JSON.stringify(value);
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value === 'function') return 'a function';
  return String(value);
}

function refuse(what, expected, value) {
  throw new TypeError(`Expected ${what} to be ${expected}, got ${describe(value)}`);
}

export function expectString(value, what) {
  if (typeof value !== 'string') refuse(what, 'a string', value);
  return value;
}

export function expectInteger(value, what, min = 0) {
  if (!Number.isSafeInteger(value) || value < min)
    refuse(what, `an integer of ${min} or more`, value);
  return value;
}

export function expectArray(value, what) {
  if (!Array.isArray(value)) refuse(what, 'an array', value);
  return value;
}

export function expectObject(value, what) {
  if (typeof value !== 'object' || value === null) refuse(what, 'an object', value);
  return value;
}
