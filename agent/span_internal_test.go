package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetbus/fleetbus/messages/bus"
)

type spanKey struct{}

// TestSpan compares the context of an execution, and one derived from it, with those of
// the standard library, at every end that they can have.
func TestSpan(t *testing.T) {
	for _, end := range []string{"time", "work", "cancel", "begun after the work", "no limit"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				work, endWork := context.WithCancel(context.WithValue(context.Background(), spanKey{}, "v"))
				defer endWork()
				var alarms bus.Alarms
				stop := func() {
					endWork()
					alarms.Close()
				}
				if end == "begun after the work" {
					stop()
				}
				var s span
				limit := time.Now().Add(time.Second)
				ref, cancelRef := context.WithDeadline(work, limit)
				if end == "no limit" {
					limit = time.Time{}
					ref, cancelRef = context.WithCancel(work)
				}
				defer cancelRef()
				s.open(work, &alarms, limit)
				var ctx context.Context = &s
				child, cancelChild := context.WithTimeout(ctx, time.Hour)
				defer cancelChild()
				childRef, cancelChildRef := context.WithTimeout(ref, time.Hour)
				defer cancelChildRef()
				ran, stopped := make(chan struct{}), context.AfterFunc(ctx, func() {
					if end != "begun after the work" {
						t.Error("it was taken back")
					}
				})
				taken := stopped()
				context.AfterFunc(ctx, func() { close(ran) })
				synctest.Wait()
				same := func(when string) {
					t.Helper()
					for i, c := range [][2]context.Context{{ctx, ref}, {child, childRef}} {
						d, ok := c[0].Deadline()
						dr, okr := c[1].Deadline()
						if !errors.Is(c[0].Err(), c[1].Err()) || (c[0].Err() == nil) != (c[1].Err() == nil) || ok != okr || !d.Equal(dr) || c[0].Value(spanKey{}) != "v" {
							t.Fatalf("%s, context %d: found %v, %v, the library's is %v, %v", when, i, c[0].Err(), d, c[1].Err(), dr)
						}
						select {
						case <-c[0].Done():
						default:
							if c[0].Err() != nil {
								t.Fatalf("%s, context %d: it ended and is not done", when, i)
							}
						}
					}
				}
				same("begun")
				if taken != (end != "begun after the work") {
					t.Fatal("AfterFunc was not taken back")
				}
				<-time.After(time.Second - time.Microsecond)
				synctest.Wait()
				same("before its time")
				switch end {
				case "work":
					stop()
				case "cancel":
					s.cancel()
					cancelRef()
				}
				<-time.After(time.Microsecond)
				synctest.Wait()
				same("at its time")
				s.cancel()
				cancelRef()
				synctest.Wait()
				same("at its end")
				<-ran
				<-s.Done()
			})
		})
	}
}
