import type { Bench } from './report.ts';

/** Every bench by its name, in the order in which they run. Loaded when asked for: each runs in a process of its own. */
export const BENCHES: Readonly<Record<string, () => Promise<Bench>>> = {
  turns: async () => (await import('./turns.ts')).turns,
  request: async () => (await import('./request.ts')).request,
  transient: async () => (await import('./transient.ts')).transient,
  messaging: async () => (await import('./messaging.ts')).messaging,
  mailbox: async () => (await import('./mailbox.ts')).mailbox,
  overhead: async () => (await import('./overhead.ts')).overhead,
  opening: async () => (await import('./opening.ts')).opening,
  recovery: async () => (await import('./recovery.ts')).recovery,
  memory: async () => (await import('./memory.ts')).memory,
  pipeline: async () => (await import('./pipeline.ts')).pipeline,
  'merge-queue': async () => (await import('./merge-queue.ts')).mergeQueue,
  workspaces: async () => (await import('./workspaces.ts')).workspaces,
  growth: async () => (await import('./growth.ts')).growth,
  'million-turns': async () => (await import('./million-turns.ts')).millionTurns,
  conversation: async () => (await import('./conversation.ts')).conversationBench,
  'time-travel': async () => (await import('./time-travel.ts')).timeTravel,
  'store-writer': async () => (await import('./store-threads.ts')).storeThreads,
};
