package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

const (
	kind   = "see"
	ended  = "ended"   // channel on which the worker says that a result is stored
	retain = time.Hour // how long asynq keeps a result; without it none is kept
	late   = 3 * time.Second
	// The worker looks for new tasks so often while there are none. The default of a second
	// would be what is measured.
	look = time.Millisecond
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("peers worker ADDRESS MANY, or peers client ADDRESS MANY BYTES")
	}
	many, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	switch {
	case args[0] == "worker":
		return worker(args[1], many)
	case args[0] == "client" && len(args) > 3:
		size, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return client(args[1], many, size)
	}
	return fmt.Errorf("found %q; there are worker and client", args[0])
}

// worker executes tasks: each answers with the number that its body begins with.
func worker(address string, many int) error {
	say := redis.NewClient(&redis.Options{Addr: address, PoolSize: many})
	defer say.Close()
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: address, PoolSize: many}, asynq.Config{
		Concurrency: many, LogLevel: asynq.ErrorLevel, TaskCheckInterval: look, ShutdownTimeout: time.Second,
	})
	mux := asynq.NewServeMux()
	mux.HandleFunc(kind, func(ctx context.Context, t *asynq.Task) error {
		answer := t.Payload()[:8]
		if _, err := t.ResultWriter().Write(answer); err != nil {
			return err
		}
		return say.Publish(ctx, ended, t.ResultWriter().TaskID()+string(answer)).Err()
	})
	if err := server.Start(mux); err != nil {
		return err
	}
	fmt.Println("runs")
	_, err := io.Copy(io.Discard, os.Stdin)
	server.Shutdown()
	return err
}

// client keeps many tasks under way for as long as each line says.
func client(address string, many, size int) error {
	ctx := context.Background()
	queue := asynq.NewClient(asynq.RedisClientOpt{Addr: address, PoolSize: many})
	defer queue.Close()
	hear := redis.NewClient(&redis.Options{Addr: address})
	defer hear.Close()
	sub := hear.Subscribe(ctx, ended)
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		return err
	}
	var waiting sync.Map // task id → chan string
	go func() {
		for m := range sub.Channel(redis.WithChannelSize(4 * many)) {
			if len(m.Payload) < 8 {
				continue
			}
			cut := len(m.Payload) - 8
			if c, ok := waiting.Load(m.Payload[:cut]); ok {
				c.(chan string) <- m.Payload[cut:]
			}
		}
	}()
	var count atomic.Uint64
	one := func() error {
		n := count.Add(1)
		body := make([]byte, size)
		binary.BigEndian.PutUint64(body, n)
		id := strconv.FormatUint(n, 36)
		answer := make(chan string, 1)
		waiting.Store(id, answer)
		defer waiting.Delete(id)
		if _, err := queue.Enqueue(asynq.NewTask(kind, body), asynq.TaskID(id), asynq.MaxRetry(5), asynq.Retention(retain)); err != nil {
			return err
		}
		timer := time.NewTimer(late)
		defer timer.Stop()
		select {
		case a := <-answer:
			if binary.BigEndian.Uint64([]byte(a)) != n {
				return fmt.Errorf("task %d: the answer %x is to another request", n, a)
			}
			return nil
		case <-timer.C:
			return fmt.Errorf("task %d: no answer within %v", n, late)
		}
	}
	fmt.Println("runs")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		ms, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		begun := time.Now()
		var n atomic.Int64
		errs := make([]error, many)
		var all sync.WaitGroup
		for k := range many {
			all.Go(func() {
				for errs[k] == nil && time.Since(begun) < time.Duration(ms)*time.Millisecond {
					errs[k] = one()
					n.Add(1)
				}
			})
		}
		all.Wait()
		out := struct {
			N     int64  `json:"n"`
			Took  int64  `json:"took"` // ns
			Error string `json:"error,omitempty"`
		}{N: n.Load(), Took: int64(time.Since(begun))}
		if err := errors.Join(errs...); err != nil {
			out.Error = err.Error()
		}
		text, err := json.Marshal(out)
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return lines.Err()
}
