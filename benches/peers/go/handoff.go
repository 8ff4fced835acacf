package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
)

// W sessions contend for one lock. Each loop is: wait for the lock, hold it for --hold (0: not at all), release it,
// queue again. A hand-off's latency runs from just before the old holder calls Unlock to Lock having returned in the
// new holder.
func runHandoff(name string, args []string) (*env, error) {
	fs, s := flags(name)
	waiters := fs.Int("waiters", 8, "contending sessions")
	cycles := fs.Int("cycles", 2000, "hand-offs measured, all sessions together")
	warm := fs.Int("warmup", -1, "hand-offs before measuring; -1: the larger of waiters and 50")
	hold := fs.Duration("hold", 0, "how long each holder keeps the lock")
	fs.Parse(args)
	if *warm < 0 {
		*warm = max(*waiters, 50)
	}
	e, err := open(*s, *waiters)
	if err != nil {
		return nil, err
	}
	ss, err := e.sessions(*waiters, 64)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()

	// Everything below is written by the holder only; the lock under test is what orders the writes, so the fields are
	// atomic and the holders counted.
	var (
		released atomic.Int64 // when the last holder started to release
		inside   atomic.Int64 // holders at this moment; more than 1 is a fault
		overlaps atomic.Int64
		taken    atomic.Int64
		stop     atomic.Bool
		mu       sync.Mutex
		lat      sample
		start    *probe
		end      *probe
		endAt    int64
		unlock   sample
		waited   sample
		failed   error
		wg       sync.WaitGroup
	)
	fail := func(err error) {
		mu.Lock()
		if failed == nil {
			failed = err
		}
		mu.Unlock()
		stop.Store(true)
	}
	for w := 0; w < *waiters; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			m := concurrency.NewMutex(ss[w], e.key("handoff"))
			for !stop.Load() {
				t0 := now()
				if err := m.Lock(ctx); err != nil {
					fail(err)
					return
				}
				t1 := now()
				if inside.Add(1) != 1 {
					overlaps.Add(1)
				}
				i := int(taken.Add(1)) - *warm
				measured := i > 0 && i <= *cycles
				if measured {
					mu.Lock()
					lat.add(t1 - released.Load())
					waited.add(t1 - t0)
					mu.Unlock()
				}
				if i == 0 || i == *cycles {
					p, err := e.probe()
					if err != nil {
						fail(err)
					}
					if i == 0 {
						start = p
					} else {
						end, endAt = p, t1
						stop.Store(true)
					}
				}
				if *hold > 0 {
					time.Sleep(*hold)
				}
				inside.Add(-1)
				t2 := now()
				released.Store(t2)
				if err := m.Unlock(ctx); err != nil {
					fail(err)
					return
				}
				if measured {
					d := now() - t2
					mu.Lock()
					unlock.add(d)
					mu.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	if failed != nil {
		return nil, failed
	}
	e.set("waiters", *waiters)
	e.set("cycles", *cycles)
	e.set("hold_ms", hold.Milliseconds())
	e.set("handoff", lat.summary())
	e.set("wait", waited.summary())
	e.set("unlock", unlock.summary())
	e.set("handoffs_s", round(float64(*cycles)/(float64(endAt-start.at)/1e9), 1))
	e.set("overlaps", overlaps.Load())
	e.set("cost", end.cost(start, *cycles))
	return e, closeSessions(ss, 64)
}
