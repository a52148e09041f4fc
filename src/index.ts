import './require-node.ts';

// the composition root
export type {
  AgentOptions,
  RunResult,
  RunSpec,
  RunStatus,
  TaskInput,
  TaskStatus,
  TroupeOptions,
} from './troupe.ts';
export { createTroupe, Run, Task, Troupe } from './troupe.ts';

// actors
export type { AssignedTask, Engine, EngineContext } from './actors/engine.ts';
export type { Compensation, Compensations } from './actors/compensation.ts';
export type { CommandEngineOptions } from './actors/command-engine.ts';
export type {
  EvidenceItem,
  Judgement,
  Submission,
  VerifyContext,
  VerifyFunction,
} from './actors/gatekeeper.ts';
export type { GitProjectOptions } from './actors/git-project.ts';
export type { Escalation, OverseerPolicy, PolicyDecision } from './actors/overseer.ts';

// workspace
export type { VerifyCommand } from './workspace/verification.ts';

// machines
export type { TaskLimits, TaskLimitsInput } from './machines/policies/limits.ts';
export type { BackoffPolicy } from './machines/policies/backoff.ts';
export type { BlockersSummary } from './machines/policies/blockers.ts';
export { phaseOf } from './machines/policies/task-phase.ts';
export type { RunState } from './machines/projections.ts';

// runtime
export { type Clock, systemClock } from './runtime/clock.ts';
export type { MachineOptions, RequestOptions, SendOptions } from './runtime/durable-host.ts';
export { effect } from './runtime/effect.ts';
export type { EffectContext } from './runtime/effect-runner.ts';
export { FaultPoints } from './runtime/fault-points.ts';
export type { EffectFact, HostEvents, Turn } from './runtime/host-events.ts';
export type { PersistedSnapshot } from './runtime/xstate-driver.ts';

// store
export { MemoryStore } from './store/memory/memory-store.ts';
export { openReadOnlyStore } from './store/sqlite/read-only.ts';
export { openSqliteStore } from './store/sqlite/sqlite-store.ts';
export type { Batch, Store } from './store/store.ts';

// protocol
export type { Address } from './protocol/address.ts';
export type { Decision, Protocol, Question, TaskPhase, TaskState } from './protocol/catalogue.ts';
export { DECISIONS, TASK_STATES } from './protocol/catalogue.ts';
export { anyAddress, durableActions } from './protocol/commands.ts';
export type { ErrorCode, Failure, TroupeErrorOptions } from './protocol/errors.ts';
export {
  CancelledError,
  ConfigurationError,
  ConflictError,
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
} from './protocol/errors.ts';
export type { JsonObject, JsonValue } from './protocol/json.ts';
export type { Message, Meta, ReplyTo } from './protocol/message.ts';
export { replyTo } from './protocol/message.ts';
export type { PriorityName } from './protocol/priority.ts';
export { PRIORITIES } from './protocol/priority.ts';
export type { CommandEvidence, Evidence, Verdict } from './protocol/verdict.ts';
