// What holds for every module and every page of docs/, present and future.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const source = new URL('../src/', import.meta.url);
const docs = new URL('../docs/', import.meta.url);
const inner = ['cli.js', 'commands.js', 'expect.js'];
const modules = readdirSync(source).filter((name) => name.endsWith('.js') && !inner.includes(name));

for (const module of modules) {
  test(`${module} refuses nonsense and says why`, async () => {
    for (const [name, value] of Object.entries(await import(new URL(module, source)))) {
      if (typeof value !== 'function') continue;
      assert.throws(
        () => value(),
        (error) => error instanceof TypeError && /^Expected .+, got /.test(error.message),
        `${name}() threw something else, or nothing`,
      );
    }
  });
}

for (const page of readdirSync(docs)) {
  test(`the examples of docs/${page} are true`, async () => {
    const exported = await import(new URL(page.replace('.md', '.js'), source));
    const evaluate = (text) =>
      new Function(...Object.keys(exported), `return (${text});`)(...Object.values(exported));
    const examples = [
      ...readFileSync(new URL(page, docs), 'utf8').matchAll(/^(.+); \/\/ => (.+)$/gm),
    ];
    assert.notEqual(examples.length, 0, 'a page without an example');
    for (const [, expression, value] of examples) {
      assert.deepEqual(evaluate(expression), evaluate(value), expression);
    }
  });
}
