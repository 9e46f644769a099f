package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// echoServer answers every line with itself, and says how many connections it has had.
func echoServer(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // until either end closes
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "nats://" + l.Addr().String()
}

func dial(t *testing.T, l *link) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(l.urls[0], "nats://"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func echo(c net.Conn, line string) (string, error) {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	text, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(text), err
}

func TestLink(t *testing.T) {
	server := echoServer(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := newLink([]string{server, "nats://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(l.url(), "nats://"); n != 2 {
		t.Errorf("%d doors, want one for each server: %s", n, l.url())
	}
	c := dial(t, l)
	if got, err := echo(c, "whole"); err != nil || got != "whole" {
		t.Fatalf("%q, %v", got, err)
	}

	// What is sent into a stalled link waits and comes afterwards; nobody is told.
	l.stall()
	if _, err := io.WriteString(c, "waits\n"); err != nil {
		t.Errorf("a stalled link tells: %v", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a stalled link carries: %v", err)
	}
	l.mend()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != "waits\n" {
		t.Errorf("after the stall: %q, %v", got, err)
	}

	// What is severed is closed, with what waited in it, and stays so.
	l.stall()
	if _, err := io.WriteString(c, "lost\n"); err != nil {
		t.Fatal(err)
	}
	l.sever()
	if n, err := c.Read(make([]byte, 10)); err == nil {
		t.Errorf("a severed link carried %d bytes", n)
	}
	if got, err := echo(dial(t, l), "too soon"); err == nil {
		t.Errorf("a severed link takes connections: %q", got)
	}
	l.mend()
	if got, err := echo(dial(t, l), "again"); err != nil || got != "again" {
		t.Errorf("mended: %q, %v", got, err)
	}
	l.close()
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(l.urls[0], "nats://"), time.Second); err == nil {
		t.Error("a closed link takes connections")
	}
}
