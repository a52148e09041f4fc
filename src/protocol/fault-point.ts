/**
 * A place where a test can make the product fail. In production it is `noFaults`.
 * `hit` is called with the point's name; an armed point may kill the process, throw, or return a promise
 * that delays or hangs. Callers in synchronous code ignore what it returns.
 */
export type FaultPoint = (name: string) => void | Promise<void>;

export const noFaults: FaultPoint = () => undefined;
