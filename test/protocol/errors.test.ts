import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  CancelledError,
  ConfigurationError,
  ConflictError,
  type ErrorCode,
  EXIT_CODES,
  fromFailure,
  LockConflictError,
  MailboxFullError,
  NotFoundError,
  StoppedError,
  TimeoutError,
  TroupeError,
  toFailure,
  ValidationError,
} from '../../src/protocol/errors.ts';
import { findNonJson } from '../../src/protocol/json.ts';

describe('errors', () => {
  test.each([
    { error: new ValidationError('m'), code: 'validation', retryable: false },
    { error: new ConfigurationError('m'), code: 'configuration', retryable: false },
    { error: new NotFoundError('m'), code: 'not_found', retryable: false },
    { error: new ConflictError('m'), code: 'conflict', retryable: false },
    { error: new LockConflictError('m'), code: 'lock_conflict', retryable: true },
    { error: new MailboxFullError('a/b', 3), code: 'unavailable', retryable: true },
    { error: new TimeoutError('m'), code: 'timeout', retryable: true },
    { error: new CancelledError('m', { retryable: true }), code: 'conflict', retryable: false },
    { error: new StoppedError(), code: 'unavailable', retryable: false },
  ])('$error.name is $code', ({ error, code, retryable }) => {
    expect(error).toBeInstanceOf(TroupeError);
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe(error.constructor.name);
    expect([error.code, error.retryable]).toEqual([code, retryable]);
    expect(error.exitCode).toBe(EXIT_CODES[code as ErrorCode]);
    expect(findNonJson(error.toFailure())).toBeUndefined();
  });

  test.each([
    { given: 0, kept: 0 },
    { given: 1_500.5, kept: 1_500.5 },
    { given: Number('Wed, 21 Oct 2026 07:28:00 GMT') * 1_000, kept: undefined },
    { given: Number.POSITIVE_INFINITY, kept: undefined },
    { given: -1, kept: 0 },
    { given: '7' as never, kept: undefined },
    { given: null as never, kept: undefined },
  ])('a wait of $given ms is told as $kept', ({ given, kept }) => {
    const failure = new TroupeError('rate_limited', 'm', { retryAfterMs: given }).toFailure();
    expect(failure.retryAfterMs).toBe(kept);
    expect(findNonJson(failure)).toBeUndefined();
  });

  test.each([
    { message: undefined, says: 'Error' },
    { message: { error: 'overloaded' }, says: '{"error":"overloaded"}' },
    { message: 7n, says: '7' },
  ])('an error whose message was overwritten with $message can be told', ({ message, says }) => {
    const failure = toFailure(Object.assign(new Error('m'), { message }));
    expect(failure).toMatchObject({ code: 'unhandled', message: says });
    expect(findNonJson(failure)).toBeUndefined();
  });

  test('each code has an exit code of its own, in the groups that are promised', () => {
    const codes = Object.values(EXIT_CODES);
    expect(new Set(codes).size).toBe(codes.length);
    expect(EXIT_CODES).toEqual({
      ...{ rate_limited: 10, timeout: 11, network: 12, unavailable: 13, upstream: 14 },
      ...{
        validation: 20,
        not_found: 21,
        conflict: 22,
        lock_conflict: 23,
        idempotency_conflict: 24,
      },
      ...{ policy: 30, approval_required: 31, quota: 32, unauthorized: 33, forbidden: 34 },
      ...{ internal: 40, configuration: 41, unhandled: 42 },
    });
  });

  test.each(Object.keys(EXIT_CODES) as ErrorCode[])('%s survives being stored and sent', (code) => {
    const error = new TroupeError(code, 'what happened', {
      context: { path: 'a.ts' },
      retryAfterMs: 250,
      cause: new Error('below'),
    });
    const failure = JSON.parse(JSON.stringify(error.toFailure()));
    const again = fromFailure(failure);
    expect(again.toFailure()).toEqual(error.toFailure());
    expect([again.code, again.message, again.retryable, again.retryAfterMs, again.context]).toEqual(
      [code, 'what happened', error.retryable, 250, { path: 'a.ts' }],
    );
    expect(error.cause).toBeInstanceOf(Error);
  });

  test.each([
    [
      Object.assign(new Error('x'), { code: 'ECONNREFUSED' }),
      { code: 'network', retryable: true, context: { name: 'Error', cause: 'ECONNREFUSED' } },
    ],
    // There is no network, or the name of the server is not known at the moment.
    [
      Object.assign(new Error('x'), { code: 'ENOTFOUND' }),
      { code: 'network', retryable: true, context: { name: 'Error', cause: 'ENOTFOUND' } },
    ],
    // A full disk is nobody's work, whoever has met it.
    [
      Object.assign(new Error('x'), { code: 'ENOSPC' }),
      { code: 'unavailable', retryable: true, context: { name: 'Error', cause: 'ENOSPC' } },
    ],
    [
      Object.assign(new Error('x'), { code: 'ENOENT' }),
      { code: 'unhandled', retryable: false, context: { name: 'Error', cause: 'ENOENT' } },
    ],
    [
      new TypeError('terminated'),
      {
        code: 'unhandled',
        retryable: false,
        message: 'terminated',
        context: { name: 'TypeError' },
      },
    ],
    // Words in a text decide nothing.
    [new Error('503 files were timeout network'), { code: 'unhandled', retryable: false }],
    [new Error(''), { message: 'Error' }],
    ['a text', { code: 'unhandled', message: 'a text', retryable: false }],
    [{ odd: 1 }, { message: 'A value that is not an Error was thrown: {"odd":1}' }],
    [1n, { message: 'A value that is not an Error was thrown.' }],
    [undefined, { code: 'unhandled' }],
    // `Number(headers['retry-after']) * 1000` of a date, and the like.
    [new TroupeError('rate_limited', 'x', { retryAfterMs: Number.NaN }), { code: 'rate_limited' }],
    [new TroupeError('rate_limited', 'x', { retryAfterMs: Infinity }), { code: 'rate_limited' }],
    [new TroupeError('rate_limited', 'x', { retryAfterMs: 'soon' as never }), { retryable: true }],
    [new TroupeError('rate_limited', 'x', { retryAfterMs: -5 }), { retryAfterMs: 0 }],
    [new TroupeError('rate_limited', 'x', { retryAfterMs: -0 }), { retryAfterMs: 0 }],
    // Libraries make errors of what a server has answered.
    [Object.assign(new Error('x'), { message: undefined }), { message: 'Error' }],
    [Object.assign(new Error('x'), { message: { code: 5 } }), { message: '{"code":5}' }],
    [
      Object.assign(new Error('x'), { name: undefined }),
      { message: 'x', context: { name: 'Error' } },
    ],
  ])('%s is a failure', (thrown, failure) => {
    expect(toFailure(thrown)).toMatchObject(failure);
    expect(findNonJson(toFailure(thrown))).toBeUndefined();
  });

  // Node's own client tells what has happened only as the cause.
  test.each([
    { what: 'refuses', answers: undefined },
    { what: 'hangs up', answers: (socket: Socket) => socket.destroy() },
    {
      what: 'hangs up in the middle',
      answers: (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf'),
    },
  ])('a server that $what is a fault of the network, not of the work', async ({ answers }) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => answers?.(socket));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    if (answers === undefined) await new Promise((resolve) => server.close(resolve));
    onTestFinished(() => void server.close());
    const asked = fetch(`http://127.0.0.1:${port}`).then((response) => response.text());
    const error = await asked.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(toFailure(error)).toMatchObject({ code: 'network', retryable: true });
    expect(toFailure(new Error('The model did not answer.', { cause: error }))).toMatchObject({
      code: 'network',
      message: 'The model did not answer.',
    });
  });

  test('causes that go round in a circle end nobody', () => {
    const error = new Error('x');
    error.cause = error;
    expect(toFailure(error)).toMatchObject({ code: 'unhandled', message: 'x' });
  });

  test('an error that throws when it is read is a failure', () => {
    const error = Object.defineProperty(new Error('x'), 'message', {
      get: () => {
        throw new Error('no');
      },
    });
    expect(toFailure(error)).toEqual({
      code: 'unhandled',
      message: 'An error was thrown that cannot be read.',
      retryable: false,
    });
  });

  test('the audit row has neither stack nor cause', () => {
    const error = new TimeoutError('slow', { cause: new Error('secret'), context: { ms: 5 } });
    expect(error.toAuditEvent(7)).toEqual({
      type: 'error',
      at: 7,
      name: 'TimeoutError',
      code: 'timeout',
      message: 'slow',
      retryable: true,
      context: { ms: 5 },
    });
    expect(JSON.stringify(error.toAuditEvent(7))).not.toContain('secret');
  });
});
