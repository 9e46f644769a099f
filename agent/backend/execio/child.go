package execio

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetbus/fleetbus/agent/backend"
	"github.com/fleetbus/fleetbus/agent/backend/proc"
	"github.com/fleetbus/fleetbus/messages"
)

// lingerTime is how long the output of a child that has ended is read. Its whole group
// is killed by then, so the pipes end at once, unless a process left the group.
const lingerTime = time.Second

// child is one running process. It has four goroutines: one waits for the process, one
// writes frames, one reads frames, one reads lines; done is closed when all have ended.
type child struct {
	o       Options
	name    string // for errors: the program's base name and process id
	process *proc.Process

	out     chan []frame  // to the writer; what comes together is written together
	closing chan struct{} // the writer closes standard input
	end     sync.Once
	ready   chan struct{} // the ready frame was read
	done    chan struct{}
	err     error // set before done is closed

	canceling chan struct{} // capacity 1: cancels is not empty
	places    chan struct{} // holds one for every request that the child has not answered

	mu       sync.Mutex
	last     uint64
	calls    map[uint64]*call
	held     map[uint64]bool // requests that have a place
	cancels  []uint64        // requests that were given up on and the child does not know it
	protocol error           // the first thing wrong with its output
	line     string          // the last on standard error
}

type frame struct {
	header header
	body   []byte
}

// call is a request that waits for its answer.
type call struct {
	answers chan answer // capacity 1
	req     *backend.Request
	ctx     context.Context
	storing atomic.Bool // a checkpoint of it
}

type answer struct {
	response backend.Response
	err      error
}

// start starts a child and its goroutines.
func start(o Options, open backend.Open) (*child, error) {
	c := &child{o: o, out: make(chan []frame), canceling: make(chan struct{}, 1), places: make(chan struct{}, open.Task.Slots()), held: make(map[uint64]bool), closing: make(chan struct{}), ready: make(chan struct{}), done: make(chan struct{}), calls: make(map[uint64]*call)}
	// Pipes of our own: those of package exec are closed by Wait, whatever was read.
	var ours, theirs [3]*os.File
	closeAll := func(files [3]*os.File) {
		for _, f := range files {
			if f != nil {
				_ = f.Close() // closed pipes hold nothing that could be lost
			}
		}
	}
	for i := range ours {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			return nil, err
		}
		ours[i], theirs[i] = r, w
		if i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	cmd := exec.Command(o.Command[0], o.Command[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = o.Dir, theirs[0], theirs[1], theirs[2]
	environ := o.Environ
	if environ == nil {
		environ = os.Environ()
	}
	cmd.Env = append(slices.Clone(environ), o.Env...)
	cmd.Env = append(cmd.Env, "FLEETBUS_REPLICA="+open.Replica, "FLEETBUS_TASK="+open.Task.Name, "FLEETBUS_CLASS="+string(open.Task.Class),
		"FLEETBUS_AGENT="+open.Environment.ID, "FLEETBUS_SLOTS="+strconv.Itoa(open.Task.Slots()), "FLEETBUS_MAX_BATCH="+strconv.Itoa(open.Task.Batch()))
	process, err := proc.Start(cmd, o.Guard)
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		return nil, err
	}
	c.process = process
	c.name = fmt.Sprintf("%s (process %d)", filepath.Base(o.Command[0]), process.Pid)

	var wg sync.WaitGroup
	wg.Go(func() { c.write(ours[0]) })
	read := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() { c.read(ours[1]) })
	readers.Go(func() { c.listen(ours[2]) })
	wg.Go(func() { readers.Wait(); close(read) })
	go func() {
		c.finish(<-process.Exited, read, ours)
		wg.Wait()
		close(c.done)
	}()
	return c, nil
}

// finish cleans up after the process has ended and tells why it did.
func (c *child) finish(exit error, read <-chan struct{}, ours [3]*os.File) {
	c.process.Close() // what it has started and left behind
	c.end.Do(func() { close(c.closing) })
	_ = ours[0].Close()
	select { // its last answers are read before anything is given up
	case <-read:
	case <-time.After(lingerTime):
	}
	_ = ours[1].Close()
	_ = ours[2].Close()
	<-read

	c.mu.Lock()
	defer c.mu.Unlock()
	reason := "exit status 0"
	if exit != nil {
		reason = exit.Error()
	}
	switch {
	case c.protocol != nil:
		c.err = c.protocol
	case c.line != "":
		c.err = fmt.Errorf("%s; its last line on standard error: %s", reason, c.line)
	default:
		c.err = errors.New(reason)
	}
}

// write writes frames until the child is to end.
func (c *child) write(w *os.File) {
	defer w.Close()
	buf := bufio.NewWriterSize(w, 64<<10)
	for {
		var frames []frame
		select {
		case frames = <-c.out:
		case <-c.canceling:
			frames = c.canceled()
		case <-c.closing:
			return
		}
		for _, f := range frames {
			if writeFrame(buf, f.header, f.body) != nil {
				return // it does not read any more: it has ended, or will be told to
			}
		}
		if buf.Flush() != nil {
			return
		}
	}
}

// read reads frames until the output ends. Anything else ends the child: after it
// nothing could be understood.
func (c *child) read(r *os.File) {
	buf := bufio.NewReaderSize(r, 64<<10)
	for {
		h, body, err := readFrame(buf, c.o.MaxBody)
		var large *largeBody
		if errors.As(err, &large) && h.Type == typeResult {
			// The fault of one request: to end the child would fail all, and the next attempt
			// would end another one.
			h, err = header{Type: typeError, ID: h.ID, Code: string(messages.CodePayloadTooLarge), Message: fmt.Sprintf("the result of handler %q is too large: %v", c.o.Name, err)}, nil
		}
		if err == nil {
			err = c.handle(h, body)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
				c.spoiled(err)
			}
			return
		}
	}
}

// spoiled ends a child that broke the protocol.
func (c *child) spoiled(err error) {
	c.mu.Lock()
	c.protocol = err
	c.mu.Unlock()
	c.kill()
}

// handle handles a frame of the child's. An error means that it breaks the protocol.
func (c *child) handle(h header, body []byte) error {
	isReady := false
	select {
	case <-c.ready:
		isReady = true
	default:
	}
	if h.Type == typeReady {
		if isReady {
			return errors.New("it sent a second ready frame")
		}
		close(c.ready)
		return nil
	}
	if !isReady {
		return fmt.Errorf("its first frame is %s, expected ready", quote([]byte(h.Type)))
	}
	switch h.Type {
	case typeResult, typeError, typeProgress, typePartial, typeLog, typeCheckpoint:
	default:
		return fmt.Errorf("frame type %s is not one we know; allowed are ready, result, error, progress, partial, log, checkpoint", quote([]byte(h.Type)))
	}
	c.mu.Lock()
	call, known := c.calls[h.ID], h.ID > 0 && h.ID <= c.last
	c.mu.Unlock()
	if !known {
		return fmt.Errorf("a %s frame is for request %d, which was never sent", h.Type, h.ID)
	}
	if h.Type == typeResult || h.Type == typeError {
		c.leave(h.ID)
	}
	if call == nil {
		return nil // its time is over
	}
	a := answer{response: backend.Response{Body: body, ContentType: h.ContentType}}
	switch h.Type {
	case typeProgress:
		if call.req.Progress != nil {
			call.req.Progress(h.Done, h.Note)
		}
		return nil
	case typePartial:
		if call.req.Partial != nil {
			if err := call.req.Partial(body, h.ContentType); err != nil {
				c.o.Logger.Warn("partial result not sent", "handler", c.o.Name, "process", c.process.Pid, "error", err)
			}
		}
		return nil
	case typeLog:
		if call.req.Log != nil {
			call.req.Log(h.Message)
		}
		return nil
	case typeCheckpoint:
		c.checkpoint(h, call, body)
		return nil
	case typeError:
		a = answer{err: childError(h)}
	}
	select {
	case call.answers <- a:
	default: // it was answered already
	}
	return nil
}

// childError is an error that the child reported.
func childError(h header) error {
	code := messages.Code(h.Code)
	if h.Code == "" || !code.Known() {
		code = messages.CodeBackendFailed
	}
	text := h.Message
	if text == "" {
		text = "the child process gave no reason"
	}
	return messages.Errorf(code, "%s", text)
}

func (c *child) register(ctx context.Context, req *backend.Request) (uint64, <-chan answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	answers := make(chan answer, 1)
	c.calls[c.last] = &call{answers: answers, req: req, ctx: ctx}
	c.held[c.last] = true
	return c.last, answers
}

func (c *child) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

// leave gives the place of a request back, once.
func (c *child) leave(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[id] {
		delete(c.held, id)
		<-c.places
	}
}

// expect ends a child that goes on with a request that was given up on for longer than
// it would have to end altogether: it hangs, and its place with it.
func (c *child) expect(id uint64) {
	time.AfterFunc(c.o.StopTimeout, func() {
		c.mu.Lock()
		hangs := c.held[id]
		c.mu.Unlock()
		if hangs {
			c.spoiled(fmt.Errorf("it did not answer request %d within %v after that was canceled; answer every request, canceled ones too", id, c.o.StopTimeout))
		}
	})
}

// cancel tells the child that an answer is not wanted any more. It does not wait: a
// child that reads nothing must not hold up whoever gave up on it. None is lost either,
// and there are never more than requests that were sent.
func (c *child) cancel(id uint64) {
	c.mu.Lock()
	c.cancels = append(c.cancels, id)
	c.mu.Unlock()
	select {
	case c.canceling <- struct{}{}:
	default: // the writer will find it with the others
	}
}

// canceled takes the cancel frames that are to be written.
func (c *child) canceled() []frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []frame
	for _, id := range c.cancels {
		list = append(list, frame{header: header{Type: typeCancel, ID: id}})
	}
	c.cancels = c.cancels[:0]
	return list
}

func (c *child) terminate() { c.signal(c.process.Terminate) }
func (c *child) kill()      { c.signal(c.process.Kill) }

// signal signals the child's group, unless the child has ended: its number may belong
// to somebody else by now.
func (c *child) signal(send func()) {
	select {
	case <-c.done:
	default:
		send()
	}
}
