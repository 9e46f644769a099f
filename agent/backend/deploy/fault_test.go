package deploy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/internal/artifact"
	"github.com/fleetbus/fleetbus/internal/bodyfile"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// What cannot run says why.
func TestFaults(t *testing.T) {
	r := newRig(t)
	data := body(1, 3<<20)
	digest := r.push(data)
	text := r.push([]byte("#!/no/such/interpreter\n"))
	// Another body under a digest: whoever may write to the store may do this.
	store, err := r.b.Objects(within(t), bus.Artifacts)
	must(t, err)
	wrong := strings.Repeat("0d", 32)
	_, err = store.PutBytes(within(t), wrong, []byte("something else"))
	must(t, err)
	// One whose chunks are gone.
	cut := r.push(body(2, 3<<20))
	found, err := artifact.Find(within(t), r.b, cut)
	must(t, err)
	stream, err := r.b.JS.Stream(within(t), bus.ObjectStream(fleet, bus.Artifacts))
	must(t, err)
	must(t, stream.Purge(within(t), jetstream.WithPurgeSubject("$O."+bus.ObjectsName(fleet, bus.Artifacts)+".C."+found.Body().Object), jetstream.WithPurgeKeep(0)))

	plain := filepath.Join(t.TempDir(), "plain")
	must(t, os.WriteFile(plain, nil, 0o600))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	quick := func(t *messages.Task) { t.Run.ReadyTimeout = 200 }
	for _, tt := range []struct {
		name string
		task messages.Task
		disk func(*bodyfile.Dir)
		most int64
		code messages.Code
		want string
	}{
		{name: "missing", task: task("http", strings.Repeat("0e", 32), nil), code: messages.CodeNotFound, want: "artifact 0e0e0e0e0e0e is not in the fleet's store; `fleetbus artifacts push FILE` puts it there"},
		{name: "wrong", task: task("http", wrong, nil), code: messages.CodeInternal, want: "what the store has under this digest is something else; remove it"},
		{name: "cut", task: task("http", cut, nil), code: messages.CodeNotFound, want: "the store has nothing after 0 of 3145728 bytes"},
		{name: "full disk", task: task("http", digest, nil), disk: func(d *bodyfile.Dir) { d.Free = func(string) (int64, bool) { return 1 << 20, true } },
			code: messages.CodeNoCapacity, want: "the disk is full: artifact " + digest[:12] + " has 3.1 MB and 1.0 MB are free at "},
		{name: "full disk, found by writing", task: task("http", digest, nil), disk: func(d *bodyfile.Dir) {
			d.Free = func(string) (int64, bool) { return 0, false }
			d.Write = func(f *os.File, p []byte) error {
				return &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
			}
		}, code: messages.CodeNoCapacity, want: "the disk is full"},
		{name: "small cache", task: task("http", digest, nil), most: 1000, code: messages.CodeNoCapacity, want: "has 3.1 MB and the cache takes 1000 bytes, of which the tasks that are placed here need 0 bytes; raise --artifact-cache"},
		{name: "no command", task: task("http", "", func(t *messages.Task) { t.Run.Command = []string{"no-such-program"} }), code: messages.CodeBackendFailed, want: "cannot start no-such-program: exec: \"no-such-program\": executable file not found in $PATH; check the command, and whether this machine has it"},
		{name: "no command, frames", task: task("exec", "", func(t *messages.Task) { t.Run.Command = []string{"./no-such-program"} }), code: messages.CodeBackendFailed, want: "cannot start ./no-such-program: stat "},
		{name: "no program", task: task("http", "", func(t *messages.Task) { t.Run.Command = []string{plain} }), code: messages.CodeBackendFailed, want: "cannot start " + plain + ": "},
		{name: "no interpreter", task: task("http", text, func(t *messages.Task) { t.Run.Command = []string{"{artifact}"} }), code: messages.CodeBackendFailed, want: "ended before it was ready: exit status 127; its last line: guard: "},
		{name: "never", task: task("never", "", quick), code: messages.CodeBackendFailed, want: "was not ready within 200ms"},
		{name: "never, frames", task: task("exec", "", func(t *messages.Task) { quick(t); t.Run.Env[stubEnv] = "never" }), code: messages.CodeBackendFailed, want: "sent no ready frame within 200ms"},
		{name: "crash", task: task("crash", "", nil), code: messages.CodeBackendFailed, want: "ended before it was ready: exit status 3; its last line: no GPU found"},
		{name: "crash, policy", task: task("openpi", "", func(t *messages.Task) { t.Run.Env[stubEnv] = "crash" }), code: messages.CodeBackendFailed, want: "ended before it was ready: exit status 3"},
		{name: "port taken", task: task("http", "", func(t *messages.Task) { t.Run.URL = "http://" + taken.Addr().String() + "/predict" }), code: messages.CodeBackendFailed,
			want: taken.Addr().String() + ", where its server is to listen, is taken: by another process, or by the replica that this one is to replace; with {port} in url and command"},
		{name: "port taken, policy", task: task("openpi", "", func(t *messages.Task) { t.Run.URL = "ws://" + taken.Addr().String() }), code: messages.CodeBackendFailed, want: "is taken"},
		{name: "nothing to run", task: messages.Task{Name: "grasp", Class: messages.Inference}, code: messages.CodeBadRequest, want: "brings nothing"},
		{name: "another machine", task: task("http", "", func(t *messages.Task) { t.Run.URL = "http://10.0.0.1:80/" }), code: messages.CodeBadRequest, want: "expected one on loopback"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d, _ := r.deployer(dir, func(o *Options) { o.Cache = tt.most })
			d.cache.opened = tt.disk
			var n notes
			s, err := d.Open(within(t), n.open(tt.task))
			if err == nil {
				_ = s.Close()
			}
			if messages.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("code %s: %v\nwant %s, %s", messages.CodeOf(err), err, tt.code, tt.want)
			}
			if list, _ := os.ReadDir(filepath.Join(dir, "work")); len(list) > 0 {
				t.Errorf("left: %v", list)
			}
			if len(d.ports) > 0 || len(d.cache.used) > 0 {
				t.Errorf("kept: ports %v, artifacts %v", d.ports, d.cache.used)
			}
		})
	}
}

// Told that the replica is not wanted, Open ends, whatever it is doing.
func TestOpenCanceled(t *testing.T) {
	r := newRig(t)
	d, _ := r.deployer(t.TempDir(), nil)
	file := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(context.Background())
	var n notes
	ended := make(chan error, 1)
	go func() {
		_, err := d.Open(ctx, n.open(task("never", "", func(t *messages.Task) { t.Run.Env["STUB_CHILD"], t.Run.StopTimeout = file, 200 })))
		ended <- err
	}()
	processes := pids(t, file)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	gone(t, processes)
}

// large is of many questions, so that a fault finds a download in its midst.
const large = 32 << 20

// slack is what may come twice, and what comes beside a body: a question of 2 MiB that was
// cut, what was not saved, and the headers of chunks.
const slack = bodyfile.SaveEvery + 4<<20

// A download that is interrupted, by a link or by the end of the agent, goes on.
func TestResumes(t *testing.T) {
	r := newRig(t)
	data := body(1, large)
	digest := r.push(data)
	dir := t.TempDir()

	// The agent ends in the midst.
	ctx, cancel := context.WithCancel(context.Background())
	d, _ := r.deployer(dir, nil)
	slow := func(at int64, do func()) func(*bodyfile.Dir) {
		var once sync.Once
		return func(f *bodyfile.Dir) {
			write, n := f.Write, int64(0)
			f.Write = func(file *os.File, p []byte) error {
				if n += int64(len(p)); n > at {
					once.Do(do)
				}
				return write(file, p)
			}
		}
	}
	d.cache.opened = slow(large/2, cancel)
	if _, _, err := d.cache.get(ctx, digest, func(string) {}, func(float64) {}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	d.Close()

	// Another life, whose link breaks.
	link := r.s.Link("a1")
	second, nc := r.deployer(dir, nil, link.Dial())
	second.cache.opened = slow(large/4, func() { link.Break(); link.Mend() })
	var path string
	eventually(t, "the artifact", func() bool {
		p, release, err := second.cache.get(within(t), digest, func(string) {}, func(float64) {})
		if err != nil {
			return false
		}
		release()
		path = p
		return true
	})
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("it is another")
	}
	if in := int64(nc.Stats().InBytes); in > large/2+2*slack {
		t.Errorf("%d bytes came, half of %d were there", in, large)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != fileMode {
		t.Errorf("mode %v", info.Mode())
	}
	if list, err := os.ReadDir(filepath.Join(dir, ours)); err != nil || len(list) != 2 {
		t.Errorf("left beside the list and the lock: %v, %v", list, err)
	}
}

// The cache keeps what placed tasks need, removes the longest not used, and mends what was
// changed.
func TestCache(t *testing.T) {
	r := newRig(t)
	const size = 1 << 20
	var digests []string
	for i := range 4 {
		digests = append(digests, r.push(body(uint64(i), size)))
	}
	dir := t.TempDir()
	d, nc := r.deployer(dir, func(o *Options) { o.Cache = 2*size + size/2 })
	get := func(i int) error {
		_, release, err := d.cache.get(within(t), digests[i], func(string) {}, func(float64) {})
		if err == nil {
			release()
		}
		return err
	}
	have := func(want ...int) {
		t.Helper()
		var got []int
		for i, digest := range digests {
			if _, err := os.Stat(filepath.Join(dir, digest)); err == nil {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("on the disk are %v, want %v", got, want)
		}
	}
	must(t, get(0))
	must(t, get(1))
	must(t, get(0)) // used last
	must(t, get(2))
	have(0, 2)
	d.Placed([]messages.Task{{Name: "a", Run: &messages.Run{Artifact: digests[0]}}, {Name: "b", Run: &messages.Run{Artifact: digests[2]}}, {Name: "c"}})
	if err := get(3); messages.CodeOf(err) != messages.CodeNoCapacity || !strings.Contains(err.Error(), "need 2.1 MB; raise --artifact-cache") {
		t.Errorf("with two that are needed: %v", err)
	}
	have(0, 2)
	d.Placed([]messages.Task{{Name: "b", Run: &messages.Run{Artifact: digests[2]}}})
	must(t, get(3))
	have(2, 3)

	// A file that was changed is read, and fetched again; one that was only touched is read.
	path := filepath.Join(dir, digests[2])
	must(t, os.Chmod(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{1, 2, 3}, 1000)
	must(t, err)
	must(t, f.Close())
	must(t, get(2))
	got, err := os.ReadFile(path)
	must(t, err)
	if sum := sha256.Sum256(got); hex.EncodeToString(sum[:]) != digests[2] {
		t.Error("what was damaged is used")
	}
	have(2, 3)
	in := nc.Stats().InBytes
	now := time.Now()
	must(t, os.Chtimes(path, now, now))
	must(t, get(2))
	if more := nc.Stats().InBytes - in; more > size/2 {
		t.Errorf("%d bytes came for what was only touched", more)
	}
	// What a restart finds is known without reading, or fetching.
	d.Close()
	second, nc := r.deployer(dir, nil)
	if _, _, err := second.cache.get(within(t), digests[3], func(string) {}, func(float64) {}); err != nil {
		t.Error(err)
	}
	if in := nc.Stats().InBytes; in > size/2 {
		t.Errorf("%d bytes came for what was there", in)
	}
}

// Files of which nothing is known any more take room, too: they go first, and one that is
// wanted is read, not fetched. What is listed and not there takes none.
func TestCacheFindsWhatIsThere(t *testing.T) {
	r := newRig(t)
	const size = 1 << 20
	var digests []string
	for i := range 4 {
		digests = append(digests, r.push(body(uint64(i), size)))
	}
	dir := t.TempDir()
	limit := func(o *Options) { o.Cache = 3*size + size/2 }
	d, _ := r.deployer(dir, limit)
	get := func(d *Deployer, i int) {
		t.Helper()
		_, release, err := d.cache.get(within(t), digests[i], func(string) {}, func(float64) {})
		must(t, err)
		release()
	}
	for i := range 3 {
		get(d, i)
	}
	d.Close()
	must(t, os.Remove(filepath.Join(dir, ours, listFile)))
	must(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("somebody's"), 0o600))

	second, nc := r.deployer(dir, limit)
	get(second, 1)
	if in := nc.Stats().InBytes; in > size/2 {
		t.Errorf("%d bytes came for what was there", in)
	}
	get(second, 3)
	left := []bool{}
	for _, digest := range digests {
		_, err := os.Stat(filepath.Join(dir, digest))
		left = append(left, err == nil)
	}
	if n := len(slices.DeleteFunc(slices.Clone(left), func(there bool) bool { return !there })); n != 3 || !left[1] || !left[3] {
		t.Errorf("on the disk are %v of 4, and 3 fit", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Error(err)
	}
	for _, i := range []int{1, 3} { // removed by hand: it takes no room
		must(t, os.Remove(filepath.Join(dir, digests[i])))
	}
	get(second, 0)
	get(second, 2)
	get(second, 3)
	if list, err := second.cache.look(); err != nil || len(list) != 3 {
		t.Errorf("on the disk are %v, %v", list, err)
	}
}

func TestEvict(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	held := []entry{{"c", 10, "", at(3)}, {"a", 10, "", at(1)}, {"b", 10, "", at(2)}, {"d", 10, "", at(1)}}
	for _, tt := range []struct {
		name                string
		needed              string
		size, most, lacking int64
		known               bool
		want                string
		ok                  bool
	}{
		{name: "room", size: 10, most: 50, ok: true},
		{name: "one goes", size: 10, most: 40, want: "a", ok: true},
		{name: "the older first", size: 25, most: 40, want: "a d b", ok: true},
		{name: "what is needed stays", needed: "ad", size: 10, most: 40, want: "b", ok: true},
		{name: "all are needed", needed: "abcd", size: 10, most: 40},
		{name: "too large", size: 50, most: 40},
		{name: "larger than any disk", size: math.MaxInt64, most: 40},
		{name: "the disk is full", size: 10, most: 100, lacking: 15, known: true, want: "a d", ok: true},
		{name: "it is not known how full", size: 10, most: 100, lacking: 15, ok: true},
		{name: "the disk stays full", size: 10, most: 100, lacking: 1000, known: true, want: "a d b c", ok: true},
	} {
		out, ok := evict(held, func(d string) bool { return strings.Contains(tt.needed, d) }, tt.size, tt.most, tt.lacking, tt.known)
		if got := strings.Join(out, " "); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %q, %v; want %q, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

// Replicas that need the same artifact fetch it once, and one after another what differs.
func TestFetchedOnce(t *testing.T) {
	r := newRig(t)
	digest := r.push(body(1, large))
	d, nc := r.deployer(t.TempDir(), nil)
	var wg sync.WaitGroup
	var failed atomic.Int64
	for range 8 {
		wg.Go(func() {
			if _, _, err := d.cache.get(within(t), digest, func(string) {}, func(float64) {}); err != nil {
				failed.Add(1)
			}
		})
	}
	wg.Wait()
	if in := int64(nc.Stats().InBytes); failed.Load() > 0 || in > large+slack {
		t.Errorf("%d failed, %d bytes came for %d", failed.Load(), in, large)
	}
}

// When an agent is killed nothing of what it has started is left, and its successor goes on
// with the replica.
func TestAgentKilled(t *testing.T) {
	r := newRig(t)
	sub, err := r.b.Conn.SubscribeSync("fb." + fleet + ".main.hb.a1")
	must(t, err)
	digest := r.push([]byte("model-1"))
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "pids")
	r.document(task("http", digest, func(t *messages.Task) { t.Run.Env["STUB_CHILD"] = file }))
	start := func() *exec.Cmd {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), stubEnv+"=agent", "STUB_URL="+r.s.URL(), "STUB_DIR="+dir)
		must(t, c.Start())
		return c
	}
	first := start()
	r.replica(sub, messages.ReplicaReady)
	processes := pids(t, file)
	for _, pid := range processes {
		if !alive(pid) {
			t.Fatalf("process %d does not run", pid)
		}
	}
	must(t, first.Process.Kill())
	_ = first.Wait() // it was killed
	gone(t, processes)

	must(t, os.Remove(file))
	second := start()
	defer func() {
		_ = second.Process.Kill()
		_ = second.Wait()
	}()
	processes = pids(t, file)
	for st := (messages.ReplicaStatus{}); st.State != messages.ReplicaReady; {
		st = r.replica(sub, messages.ReplicaReady)
	}
	// A server that is killed is started again.
	must(t, syscall.Kill(processes[0], syscall.SIGKILL))
	gone(t, processes)
	if st := r.replica(sub, messages.ReplicaFailed); !strings.Contains(st.Reason, "(process ") || !strings.Contains(st.Reason, "signal: killed") {
		t.Errorf("%+v", st)
	}
	var again []int
	eventually(t, "another process", func() bool { again = pids(t, file); return again[0] != processes[0] })
	r.replica(sub, messages.ReplicaReady)
	must(t, second.Process.Kill())
	_ = second.Wait()
	gone(t, again)
}

// What an agent has left that was killed is removed when the next one begins, also what may
// not be written to; and not while another process has the directory.
func TestSweep(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	left := filepath.Join(dir, workDir, "gone.0", "unpacked")
	must(t, os.MkdirAll(left, 0o700))
	must(t, os.WriteFile(filepath.Join(left, "weights"), body(1, 1000), 0o400))
	must(t, os.Chmod(left, 0o500))
	must(t, os.MkdirAll(filepath.Join(dir, oldPrefix+"1", workDir), 0o700)) // one that was not swept to its end
	there := func(path string) bool { _, err := os.Stat(path); return err == nil }

	held, err := bodyfile.Open(t.Context(), filepath.Join(dir, ours), func() {})
	must(t, err)
	first, _ := r.deployer(dir, nil)
	first.Placed(nil)
	first.Close()
	if !there(left) {
		t.Error("it was removed while another process had it")
	}
	held.Close()

	d, _ := r.deployer(dir, nil)
	var n notes
	here := task("http", r.push([]byte("model-1")), nil)
	d.Placed([]messages.Task{here})
	s, err := d.Open(within(t), n.open(here))
	must(t, err)
	d.Placed(nil) // what runs stays, whatever is placed
	if got, err := ask(t, s, "x"); err != nil || got != "model-1|x" || !there(filepath.Join(dir, workDir, "grasp.0")) {
		t.Errorf("%q, %v", got, err)
	}
	d.sweeping.Wait()
	list, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if there(left) || slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, oldPrefix) }) {
		t.Errorf("left are %v", names)
	}
	must(t, s.Close())
}
