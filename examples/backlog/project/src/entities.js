// Generated: each character that HTML has a name for here, and that name. Sorted by name.
export const entities = [
  ['&', 'amp'],
  ['>', 'gt'],
  ['<', 'lt'],
];
