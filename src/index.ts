import './require-node.ts';

// the composition root
export type {
  AgentOptions,
  QaInput,
  RunCancellation,
  RunResult,
  RunSpec,
  RunStatus,
  StoreCheck,
  TaskInput,
  TaskStatus,
  TroupeOptions,
} from './troupe.ts';
export { type CheckStoreOptions, checkStore } from './check-store.ts';
export { type QueryStoreOptions, queryStore } from './query-store.ts';
export { createTroupe, Run, Task, Troupe } from './troupe.ts';

// actors
export type { AgentLifeOptions } from './actors/agent-life.ts';
export {
  AGENT_PRESETS,
  type AgentPreset,
  type AgentPresetSettings,
  type PresetAgentOptions,
} from './actors/agent-presets.ts';
export { type AgentStats, agentStats } from './actors/agent-stats.ts';
export type { Artifacts } from './actors/artifacts.ts';
export type { AssignedTask, Engine, EngineContext } from './actors/engine.ts';
export type { Compensation, Compensations } from './actors/compensation.ts';
export { Breaker, type BreakerStatus, listBreakers } from './actors/breaker.ts';
export type { CommandEngineOptions } from './actors/command-engine.ts';
export type {
  EvidenceItem,
  Judgement,
  Submission,
  VerifyContext,
  VerifyFunction,
} from './actors/gatekeeper.ts';
export type { AuditEntry, AuditOptions, AuditQuery, AuditStore } from './actors/audit.ts';
export { AuditReader } from './actors/audit.ts';
export type { CheckpointDiff, Difference } from './actors/checkpoint-diff.ts';
export type { CheckpointInfo, CutDiff, CutInfo, Note, TaskDiff } from './actors/history.ts';
export { History } from './actors/history.ts';
export type { FlowMetrics, Tract } from './actors/flow.ts';
export type { TaskMove } from './actors/cuts.ts';
export type { GitProjectOptions } from './actors/git-project.ts';
export type {
  Escalation,
  OverseerPolicy,
  PolicyDecision,
  SupervisorFailure,
  SupervisorPolicy,
} from './actors/overseer.ts';
export type {
  ChildOptions,
  SubtreeOptions,
  SuperviseOptions,
  SupervisorStatus,
} from './actors/supervisor.ts';
export { Supervisor, supervisorStatus } from './actors/supervisor.ts';
export { countPrunableFiles } from './actors/git-project.ts';
export type { NextSignal, NextSignalOptions, Signal } from './actors/signals.ts';
export type { SignalOptions, StreamReading, WriteStreamOptions } from './actors/stream-access.ts';
export type { RegressionReport, ReportedRegression } from './actors/regressions.ts';
export type { RetentionOptions } from './actors/retention.ts';
export type { ScheduledAction, ScheduleStatus, ScheduleTiming } from './actors/schedules.ts';
export { listSchedules, Schedule, Schedules } from './actors/schedules.ts';
export type { TemplateCall, TemplateParameter, WorkflowTemplate } from './actors/templates.ts';
export type { PhaseInput, PhaseTask, WorkflowSpec } from './actors/workflow.ts';
export { parseRetention } from './actors/retention.ts';

// workspace
export {
  type CheckProjectOptions,
  checkProject,
  type ProjectCheck,
} from './workspace/check-project.ts';
export type { RuleAction, RuleName, RuleSettings } from './workspace/change-rules.ts';
export { CHANGE_RULES, RULE_ACTIONS } from './workspace/change-rules.ts';
export type {
  Reviewer,
  ReviewAnswer,
  ReviewFinding,
  ReviewOptions,
  ReviewRequest,
} from './workspace/review.ts';
export { REVIEW_DECISIONS, REVIEW_MODES } from './workspace/review.ts';
export type { CacheSettings } from './workspace/command-cache.ts';
export type { VerifyCommand } from './workspace/verification.ts';

// machines
export type { BreakerSettings } from './machines/breaker-machine.ts';
export type { CancelReport } from './machines/task-machine.ts';
export { AGENT_STAGES, type AgentStage } from './machines/policies/agent-chain.ts';
export type { TaskLimits, TaskLimitsInput } from './machines/policies/limits.ts';
export type { BackoffPolicy } from './machines/policies/backoff.ts';
export type { BlockersSummary } from './machines/policies/blockers.ts';
export type { SkipPlan, SkippableTask } from './machines/policies/skip.ts';
export { planSkip } from './machines/policies/skip.ts';
export type { StagingInput, StagingLimits } from './machines/policies/staging.ts';
export { type PhaseStatus, phaseStatus } from './machines/policies/phases.ts';
export { phaseOf } from './machines/policies/task-phase.ts';
export { describeProgress, type TaskProgress } from './machines/policies/task-progress.ts';
export type { Debounce, FlowOptions, KeyedLimit, KeyedRate } from './machines/flow-control.ts';
export type { RunState } from './machines/projections.ts';

// runtime
export { type Clock, systemClock } from './runtime/clock.ts';
export type { MachineOptions, RequestOptions, SendOptions } from './runtime/durable-host.ts';
export { effect } from './runtime/effect.ts';
export type { EffectContext } from './runtime/effect-runner.ts';
export type {
  Step,
  StepFunction,
  StepOptions,
  StepRetry,
  StepRun,
  StepTransaction,
  TransactionOptions,
} from './runtime/step.ts';
export { StepMismatchError } from './runtime/step.ts';
export { FaultPoints } from './runtime/fault-points.ts';
export type { EffectFact, HostEvents, Turn } from './runtime/host-events.ts';
export type { Overflow } from './runtime/mailbox-policy.ts';
export type { DropReason, MessageCounts } from './runtime/message-counts.ts';
export type { Validate, ValidatedBy } from './runtime/validation.ts';
export type { PruneReport } from './runtime/housekeeping.ts';
export type { Fence, Lease, LeaseOptions, Leases } from './runtime/leases.ts';
export type { Ending } from './runtime/lives.ts';
export { type Migrations, migrations, type StateWith } from './runtime/migrations.ts';
export type { QueriedActor, Queries, QueryFunction } from './runtime/queries.ts';
export type {
  ReadStreamOptions,
  StreamChunk,
  StreamLimits,
  StreamWriter,
} from './runtime/stream.ts';
export { latestChunks } from './runtime/stream.ts';
export type { PersistedSnapshot } from './runtime/xstate-driver.ts';

// store
export { MemoryStore } from './store/memory/memory-store.ts';
export {
  type AesGcmKeys,
  aesGcmCodec,
  parseKeys,
  readKeyFile,
} from './store/payload/aes-gcm-codec.ts';
export type { PayloadCodec } from './store/payload/codec.ts';
export { PackedStore } from './store/payload/packed-store.ts';
export type { Reencrypted, ReencryptOptions } from './store/payload/reencrypt.ts';
export { findUnfinishedBackups } from './store/sqlite/unfinished-backups.ts';
export { findStoreOwner, type StoreOwner } from './store/sqlite/owner-lock.ts';
export { openReadOnlyStore } from './store/sqlite/read-only.ts';
export { openSqliteStore } from './store/sqlite/sqlite-store.ts';
export type { Batch, LeaseRow, SqlValue, Store } from './store/store.ts';

// protocol
export type { Address } from './protocol/address.ts';
export type {
  Decision,
  FixOrder,
  Protocol,
  Question,
  SupervisorDecision,
  TaskPhase,
  TaskState,
} from './protocol/catalogue.ts';
export { DECISIONS, TASK_STATES } from './protocol/catalogue.ts';
export { anyAddress, durableActions } from './protocol/commands.ts';
export type { ErrorCode, Failure, TroupeErrorOptions } from './protocol/errors.ts';
export {
  BreakerOpenError,
  CancelledError,
  ConfigurationError,
  ConflictError,
  EXIT_CODES,
  fromFailure,
  IdempotencyConflictError,
  LockConflictError,
  MailboxFullError,
  NotFoundError,
  PayloadTooLargeError,
  StoppedError,
  TimeoutError,
  TroupeError,
  toFailure,
  UnreadablePayloadError,
  ValidationError,
} from './protocol/errors.ts';
export type { JsonObject, JsonValue } from './protocol/json.ts';
export type { Message, Meta, ReplyTo, RequestCancelled } from './protocol/message.ts';
export { replyTo } from './protocol/message.ts';
export type {
  ChildCounts,
  ChildExit,
  ChildState,
  ChildStatus,
  Intensity,
  Restart,
  Shutdown,
  Strategy,
} from './protocol/supervision.ts';
export { redactJson, redactText } from './protocol/redact.ts';
export type { PriorityName } from './protocol/priority.ts';
export { PRIORITIES } from './protocol/priority.ts';
export type { CommandEvidence, Evidence, Verdict } from './protocol/verdict.ts';
