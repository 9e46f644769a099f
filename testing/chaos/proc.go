package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Every process of the fleet is this program again, told by an environment variable what
// to be. It ends when its standard input does, so that none outlives the run.

const partEnv = "FLEETBUS_CHAOS_PART"

// The roles of processes.
const (
	roleServer      = "server"
	roleCoordinator = "coordinator"
	roleRouter      = "router"
	roleAgent       = "agent"
	roleClient      = "client" // asks with the library
	roleDoor        = "door"   // asks the routers, as a client of any language would
)

// part is what a process is to be.
type part struct {
	Role    string        `json:"role"`
	Name    string        `json:"name"`
	Life    int           `json:"life"` // from 1
	Dir     string        `json:"dir"`  // of histories, logs and whatever it keeps
	URL     string        `json:"url,omitempty"`
	Tier    messages.Tier `json:"tier,omitempty"`
	Port    int           `json:"port,omitempty"`
	Cluster int           `json:"cluster,omitempty"`
	Routes  []string      `json:"routes,omitempty"`
	Robots  []string      `json:"robots,omitempty"` // client: whom it commands
	Peers   []string      `json:"peers,omitempty"`  // agent: whom it sends messages
	Plants  []string      `json:"plants,omitempty"` // faults of its own, for the checker to find
	Sample  time.Duration `json:"sample,omitempty"` // how often it tells what it holds; 0: never
}

// historyPath is where a life of a process writes its history: a file of its own, so that
// what SIGKILL tore stands at the end of one.
func (p part) historyPath(life int) string {
	return filepath.Join(p.Dir, fmt.Sprintf("history-%s-%d.jsonl", p.Name, life))
}

// startWithin bounds the start of a process, and of the whole fleet: they start in some
// 100 ms each, and three servers elect in up to 5 s.
const startWithin = 30 * time.Second

// proc is one life of a process.
type proc struct {
	part
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  string        // its first line, by which it says that it runs
	gone  chan struct{} // closed when it has been waited for
	err   error         // of Wait; read it after gone

	mu   sync.Mutex
	over bool // it is being ended on purpose
}

// start starts a process and returns when it says that it runs. What it says afterwards
// goes to sample, line by line.
func start(p part, sample func(p part, line []byte)) (*proc, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(p.Dir, p.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	c := &proc{part: p, cmd: exec.Command(exe), gone: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), partEnv+"="+string(text))
	c.cmd.Stderr = log
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	first := make(chan string, 1)
	go func() {
		defer close(c.gone)
		lines := bufio.NewReader(out)
		line, _ := lines.ReadString('\n') // an empty one says that it ended before
		first <- strings.TrimSpace(line)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				break
			}
			sample(p, line)
		}
		c.err = c.cmd.Wait()
	}()
	limit := time.NewTimer(startWithin)
	defer limit.Stop()
	select {
	case c.said = <-first:
		if c.said == "" {
			<-c.gone
			return nil, fmt.Errorf("%s ended at once (%w); its last words: %s", p.Name, c.err, c.lastWords())
		}
		return c, nil
	case <-limit.C:
		c.kill()
		return nil, fmt.Errorf("%s did not start within %v; its last words: %s", p.Name, startWithin, c.lastWords())
	}
}

// order gives an order.
func (c *proc) order(text string) { _, _ = io.WriteString(c.stdin, text+"\n") } // fails where it has ended

// kill ends it whatever state it is in, frozen too, and returns when it is gone.
func (c *proc) kill() {
	c.meant()
	_ = c.cmd.Process.Kill() // fails where it has ended
	<-c.gone
	_ = c.stdin.Close() // its reader is gone
}

// end asks it to end and returns when it has; past the limit it is killed, and that is an
// error, as is a bad end.
func (c *proc) end(limit time.Duration) error {
	c.meant()
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails where it has ended, which is told below
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c.gone:
		_ = c.stdin.Close() // its reader is gone
		if c.err != nil {
			return fmt.Errorf("%s, life %d, did not end well on SIGTERM (%w); its last words: %s", c.Name, c.Life, c.err, c.lastWords())
		}
		return nil
	case <-t.C:
		c.kill()
		return fmt.Errorf("%s, life %d, did not end within %v of SIGTERM and was killed; its last words: %s", c.Name, c.Life, limit, c.lastWords())
	}
}

func (c *proc) signal(sig syscall.Signal) { _ = c.cmd.Process.Signal(sig) } // fails where it has ended

func (c *proc) meant() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// crashed returns what is wrong with a process that has ended though nobody ended it.
func (c *proc) crashed() error {
	select {
	case <-c.gone:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	return fmt.Errorf("%s, life %d, ended by itself (%v); its last words: %s", c.Name, c.Life, c.err, c.lastWords())
}

// lastWords are the last lines of its log.
func (c *proc) lastWords() string {
	data, err := os.ReadFile(filepath.Join(c.Dir, c.Name+".log"))
	if err != nil {
		return "(" + err.Error() + ")"
	}
	list := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(list[max(0, len(list)-4):], " | ")
}
