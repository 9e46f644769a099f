package messages

import (
	"strings"
	"time"
)

// sample is a control message as it was first written, and the file that keeps its bytes.
// Files are never edited: when a message gets a new key, a new sample is added with it,
// and the old one goes on proving that old bytes are readable.
type sample struct {
	golden string
	want   Message
	zero   func() Message
}

func newOf[T any, P interface {
	*T
	Message
}]() func() Message {
	return func() Message { return P(new(T)) }
}

func ptr[T any](v T) *T { return &v }

var (
	aFence    = Fence{Epoch: 1_795_000_000_123_456_789, Revision: 42}
	aTime     = time.Date(2026, 11, 23, 9, 30, 15, 123_456_789, time.UTC)
	aResource = Resources{Compute: 100, Storage: 1000.5, Network: 10}

	aTask = Task{
		Name: "detect", Class: Inference, Demand: Resources{10, 10, 50}, Work: ptr(12.5), Transfer: ptr(2411.0), Limit: 100, Cost: 1,
		Replicas: 2, Per: PerSite, Priority: 7, Tiers: []Tier{Edge, Cloud}, Sites: []string{"main", "hall-2"},
		Labels: map[string]string{"gpu": "yes", "arch": "arm64"}, Robot: "r1", Colocate: true, Delivery: Direct, Handler: "vla",
		Concurrency: 4, MaxAttempts: 3, Deadline: 750, Revision: 9,
	}
	aStatus = ReplicaStatus{ID: "detect/0", State: ReplicaFailed, Reason: "exit status 1", InFlight: 3, Served: 12_345, Rate: 14.5, Latency: 10.25}
	anEnv   = Environment{
		ID: "edge-1", Tier: Edge, Site: "hall-2", Labels: map[string]string{"gpu": "yes"}, Capacity: aResource, Latency: 10, Price: 5,
		Billing: Whole, Handlers: []string{"vla", AnyHandler}, Version: "0.1.0",
	}
)

var someReadings = Readings{
	CPU: 0.75, Own: 0.25, Cores: 5.5, Memory: 12.5, MemSize: 32, Disk: 80.5, DiskSize: 500, In: 12.25, Out: 3.5, Temp: 61.5,
	Power: PowerBattery, Battery: 0.85, Latency: 4.5,
	GPUs: []GPU{{Name: "Orin", Use: 0.5, Memory: 3.5, MemSize: 8, Temp: 55}, {Name: "second"}},
}

// aPreferring is aPlaced with the keys that came later.
func aPreferring() Task {
	t := aPlaced()
	t.Prefer = &Preference{Tiers: []Tier{Edge}, Sites: []string{"hall-2"}, Labels: map[string]string{"gpu": "yes", "fan": "new"}, Penalty: ptr(12.5)}
	t.MovePrice = ptr(80.5)
	return t
}

// aPlaced is a task that is valid: aTask has a number beside per, to have every key.
func aPlaced() Task {
	t := aTask
	t.Replicas = 0
	return t
}

func someReplicas() Task {
	t := aTask
	t.Per = PerFleet
	return t
}

func samples() []sample {
	return []sample{
		{"heartbeat", &Heartbeat{
			V: 1, Agent: "edge-1", Inc: aFence, Seq: 77, State: AgentDraining, Capacity: aResource, Foreign: Resources{1, 2, 3},
			Term: aFence, Rev: 5, DataAge: 120.5, RTT: 0.25,
			Replicas: []ReplicaStatus{aStatus, {ID: "hold/r1", State: ReplicaReady}},
		}, newOf[Heartbeat]()},
		{"heartbeat-2", &Heartbeat{V: 1, Agent: "r1", Inc: aFence, Seq: 78, State: AgentReady, Capacity: aResource, Stopped: "stopped by an operator: somebody is in the cell"}, newOf[Heartbeat]()},
		{"heartbeat-3", &Heartbeat{V: 1, Agent: "r1", Inc: aFence, Seq: 79, State: AgentReady, Capacity: aResource, Readings: &someReadings,
			Replicas: []ReplicaStatus{{ID: "detect/0", State: ReplicaReady, Latency: 20.5, Alone: 10.25, Kbit: 2411.5}}}, newOf[Heartbeat]()},
		{"state-2", &State{
			V: 1, Leader: "coordinator-a", Term: aFence, Settings: Settings{V: 1, WeightLatency: 1, WeightCost: 1, Reserve: 0.1, Mode: Adaptive},
			Agents:   []AgentInfo{{Environment: anEnv, State: AgentReady, Inc: aFence, Readings: &someReadings}},
			Measured: []MeasuredDelay{{Task: "detect", Agent: "edge-1", Delay: 30.5, Modelled: 10.2, Service: 10.5, Transfer: 5, Crowding: 5.25, Age: 1200}},
		}, newOf[State]()},
		{"task-entry-3", &TaskEntry{V: 1, Task: Task{Name: "hold", Class: Action, Per: PerRobot, OnLinkLoss: "retract"}}, newOf[TaskEntry]()},
		{"task-entry-4", &TaskEntry{V: 1, Task: Task{Name: "see", Class: Inference, Concurrency: 2, MaxBatch: 8, MaxWait: 2.5}}, newOf[TaskEntry]()},
		{"task-entry-idempotent", &TaskEntry{V: 1, Task: Task{Name: "see", Class: Inference, Idempotent: true}}, newOf[TaskEntry]()},
		{"stop-order", &StopOrder{V: 1, Agent: "r1", Stop: true, Fence: aFence, Reason: "somebody is in the cell", By: "lab", ID: "x1"}, newOf[StopOrder]()},
		{"stop-ack", &StopAck{V: 1, Agent: "r1", Inc: aFence, Fence: aFence, Stopped: "stopped by an operator", Canceled: 2, Saved: true, Error: "its data connection does not answer", Link: true}, newOf[StopAck]()},
		{"latch", &Latch{
			V: 1, Agent: "r1", Own: Hold{true, aFence, "somebody is in the cell"}, All: Hold{Fence: aFence},
			Local: Hold{On: true, Reason: "a stop that was not saved"}, Link: Hold{true, aFence, "no answer for 500 ms"},
		}, newOf[Latch]()},
		{"goodbye", &Goodbye{V: 1, Agent: "edge-1", Inc: aFence, Reason: "drained"}, newOf[Goodbye]()},
		{"unreached", &Unreached{V: 1, Agent: "edge-1", Inc: aFence}, newOf[Unreached]()},
		{"claim", &Claim{V: 1, Agent: "edge-1", Inc: aFence, Host: "box-7"}, newOf[Claim]()},
		{"registration", &Registration{V: 1, Environment: anEnv}, newOf[Registration]()},
		{"placement", &Placement{
			V: 1, Agent: "edge-1", Term: aFence, Rev: 6, Inc: aFence,
			Replicas: []PlacedReplica{{ID: "detect/0", Task: someReplicas(), Rank: 1, Drain: true}, {ID: "detect/hall-2", Task: aPlaced()}},
		}, newOf[Placement]()},
		{"placement-ack", &PlacementAck{V: 1, Agent: "edge-1", Inc: aFence, Term: aFence, Rev: 6, Error: "older than what it has", Replicas: []ReplicaStatus{aStatus}}, newOf[PlacementAck]()},
		{"routes", &Routes{V: 1, Term: aFence, Rev: 11, Tasks: []TaskRoute{{
			Task: aPlaced(), Waiting: "detect/1: no room",
			Replicas: []Route{{ID: "detect/0", Agent: "edge-1", Inc: aFence, Tier: Edge, Site: "hall-2", State: ReplicaReady, Rank: 1, Delay: 10.2}},
		}}}, newOf[Routes]()},
		{"settings", &Settings{V: 1, WeightLatency: 2, WeightCost: 0.5, Reserve: 0.15, Mode: Adaptive}, newOf[Settings]()},
		{"task-entry", &TaskEntry{V: 1, Task: aPlaced()}, newOf[TaskEntry]()},
		{"task-entry-2", &TaskEntry{V: 1, Task: aPreferring()}, newOf[TaskEntry]()},
		{"task-entry-interrupt", &TaskEntry{V: 1, Task: Task{Name: "detect", Class: Inference, Interrupt: InterruptNever}}, newOf[TaskEntry]()},
		{"drain-entry", &DrainEntry{V: 1, Agent: "edge-1", Reason: "new fan"}, newOf[DrainEntry]()},
		{"lease", &Lease{V: 1, Holder: "coordinator-a"}, newOf[Lease]()},
		{"lease-ttl", &Lease{V: 1, Holder: "coordinator-a", TTL: 10}, newOf[Lease]()},
		{"event", &Event{V: 1, Time: aTime, Term: aFence, Kind: "replica_moved", Agent: "edge-1", Task: "detect", ID: "detect/0", Reason: "edge-2 is lost"}, newOf[Event]()},
		{"state", &State{
			V: 1, Leader: "coordinator-a", Term: aFence, Settings: Settings{V: 1, WeightLatency: 1, WeightCost: 1, Reserve: 0.1, Mode: Dynamic},
			Agents: []AgentInfo{{Environment: anEnv, State: AgentStale, Drain: true, Inc: aFence, Rev: 6, Applied: 5, Planned: aResource, Foreign: Resources{1, 2, 3}, BeatAge: 900, RTT: 0.3}},
			Replicas: []ReplicaInfo{{ID: "detect/0", Task: "detect", Agent: "edge-1", To: "edge-2", Tier: Edge, State: ReplicaReady, Reason: "nearest that fits",
				Delay: 10.2, Status: aStatus}},
			Tasks: []Task{aPlaced()}, Bad: Counts{"heartbeat": 2, "claim": 300},
		}, newOf[State]()},
		{"question", &Question{V: 1, Name: "detect/0"}, newOf[Question]()},
		{"explanation", &Explanation{
			V: 1, Leader: "coordinator-a", Term: aFence, Task: "detect", More: 3, Agent: "edge-1", State: AgentReady,
			Replicas: []WhyReplica{{
				Info:     ReplicaInfo{ID: "detect/0", Task: "detect", Agent: "edge-1", State: ReplicaReady, Status: aStatus},
				Verdicts: []Verdict{{Agent: "edge-1", Chosen: true, Fits: true, Delay: 10.2, Cost: 5, Text: "chosen"}, {Agent: "edge-2", Text: "no room"}},
				More:     7, History: []Event{{V: 1, Time: aTime, Term: aFence, Kind: "replica_placed", Agent: "edge-1", Task: "detect", ID: "detect/0", Reason: "elected"}},
			}},
			History: []Event{{V: 1, Time: aTime, Term: aFence, Kind: "agent_ready", Agent: "edge-1", Reason: "it beats"}},
		}, newOf[Explanation]()},
		{"job", &Job{
			V: 1, ID: "Q8ZT0pT7mEo1xvXyBc0001", Task: "train", Origin: "lab", Site: "main", State: GoalAborted, Attempt: 3, Agent: "cloud-1",
			Result: []byte{0, 1, 254, 255}, Type: "application/octet-stream", Code: CodeBackendFailed, Reason: "exit status 1", Created: aTime,
		}, newOf[Job]()},
		{"job-2", &Job{
			V: 1, ID: "Q8ZT0pT7mEo1xvXyBc0001", Task: "train", Origin: "lab", Site: "main", State: GoalExecuting, Attempt: 3, Agent: "cloud-1", Created: aTime,
			Priority: High, Inc: aFence, Free: 1, Pause: 1500, Checkpoint: &Checkpoint{Name: "j.2.4", Attempt: 2, Number: 7, Size: 1 << 30, Digest: "SHA-256=abc"},
			History: []JobAttempt{{Attempt: 1, Agent: "cloud-2", Code: CodeBackendFailed, Reason: "exit status 1"}, {Attempt: 2}}, Redriven: 1,
		}, newOf[Job]()},
		{"task-entry-run", &TaskEntry{V: 1, Task: Task{Name: "grasp", Class: Inference, Run: &Run{
			Artifact: strings.Repeat("0c", 32), Command: []string{"python3", "serve.py", "--model", RunArtifact, "--port", RunPort}, Env: map[string]string{"DEVICE": "cuda:0", "LEVEL": "2"},
			Serve: ServeHTTP, URL: "http://127.0.0.1:{port}/predict", ReadyURL: "http://127.0.0.1:{port}/health", ReadyTimeout: 600_000, StopTimeout: 2500,
		}}}, newOf[TaskEntry]()},
		{"task-entry-run-2", &TaskEntry{V: 1, Task: Task{Name: "pi0", Class: Inference, Run: &Run{
			Command: []string{"serve"}, Serve: ServeOpenPI, URL: "ws://127.0.0.1:8000", HangTimeout: 90_000, Warmup: strings.Repeat("0d", 32), Sessions: true,
		}}}, newOf[TaskEntry]()},
		{"registration-runs", &Registration{V: 1, Environment: Environment{ID: "edge-1", Tier: Edge, Site: "main", Runs: true}}, newOf[Registration]()},
		{"heartbeat-4", &Heartbeat{V: 1, Agent: "edge-1", Inc: aFence, Seq: 78, State: AgentReady, Replicas: []ReplicaStatus{{ID: "grasp/0", State: ReplicaLoading, Reason: "fetches", Done: 0.25}}}, newOf[Heartbeat]()},
		{"task-entry-retry", &TaskEntry{V: 1, Task: Task{Name: "train", Class: Training, RetryPause: 500, RetryMost: 60_000}}, newOf[TaskEntry]()},
		{"progress", &Progress{V: 1, Job: "Q8ZT0pT7mEo1xvXyBc0001", Agent: "cloud-1", Attempt: 2, Done: 0.25, Note: "epoch 3"}, newOf[Progress]()},
		{"outcome", &Outcome{
			V: 1, ID: "a1", Task: "hold", Agent: "r1", Inc: aFence, Episode: "ep-7", Seq: 12, State: GoalSucceeded, Code: CodeStale, Reason: "why", Service: 1.25,
		}, newOf[Outcome]()},
		{"data", &Data{
			V: 1, Name: "policy", Rev: 3, Digest: strings.Repeat("0a", 32), Size: 209_715_200, Object: "Q8ZT0pT7mEo1xvXyBc0001", First: 1601,
			For:  Audience{Tiers: []Tier{Robot, Edge}, Sites: []string{"hall-2"}, Labels: map[string]string{"gpu": "yes"}, Agents: []string{"edge-1"}},
			Type: "application/octet-stream", By: "lab@host",
		}, newOf[Data]()},
		{"data-removed", &Data{V: 1, Name: "policy", Rev: 4, Removed: true}, newOf[Data]()},
		{"data-ack", &DataAck{
			V: 1, Name: "policy", Agent: "edge-1", State: DataFailed, Held: 2, Digest: strings.Repeat("0b", 32), Want: 3, Have: 8_388_608, Reason: "the disk is full",
		}, newOf[DataAck]()},
		{"probe", &Probe{V: 1, Inc: aFence, IDs: []string{"a1", "a2"}}, newOf[Probe]()},
	}
}
