import { camelCase, kebabCase, snakeCase, titleCase } from '../case.js';

const styles = { camel: camelCase, kebab: kebabCase, snake: snakeCase, title: titleCase };

export const caseCommand = {
  name: 'case',
  usage: 'case camel|kebab|snake|title',
  summary: 'Changes the case of each line',
  run(input, [style]) {
    if (!Object.hasOwn(styles, style ?? '')) {
      throw new TypeError(`Expected one of ${Object.keys(styles).join(', ')}, got ${style}`);
    }
    return input.replace(/.+/g, (line) => styles[style](line));
  },
  example: { args: ['snake'], input: 'fooBar\nBar baz\n', output: 'foo_bar\nbar_baz\n' },
};
