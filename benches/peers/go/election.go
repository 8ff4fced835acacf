package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/v3/concurrency"
)

// The value of a proposal is its number; when a proposal became leader and when an observer saw it are kept by
// number.
func proposal(n int) string { return fmt.Sprintf("p%d", n) }

type observed struct {
	mu   sync.Mutex
	seen map[string]int64
}

func (o *observed) put(v string, t int64) {
	o.mu.Lock()
	if _, ok := o.seen[v]; !ok {
		o.seen[v] = t
	}
	o.mu.Unlock()
}

func (o *observed) get(v string) (int64, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.seen[v]
	return t, ok
}

func observe(ctx context.Context, s *concurrency.Session, pfx string) *observed {
	o := &observed{seen: map[string]int64{}}
	el := concurrency.NewElection(s, pfx)
	ch := el.Observe(ctx)
	go func() {
		for r := range ch {
			o.put(string(r.Kvs[0].Value), now())
		}
	}()
	return o
}

func runElection(name string, args []string) (*env, error) {
	fs, s := flags(name)
	n := fs.Int("n", 300, "hand-overs measured")
	warm := fs.Int("warmup", 20, "hand-overs before measuring")
	hold := fs.Duration("hold", 0, "how long a leader stays before it resigns")
	candidates := fs.Int("candidates", 3, "candidates")
	failovers := fs.Int("failovers", 8, "fail-overs measured, side by side in elections of their own")
	short := fs.Int("failover-ttl", 5, "TTL of a session that is orphaned, seconds")
	fs.Parse(args)
	e, err := open(*s, *candidates+1)
	if err != nil {
		return nil, err
	}
	ss, err := e.sessions(*candidates+1, 8)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// Hand-over: each candidate campaigns, leads for --hold, resigns, and campaigns again.
	pfx := e.key("election")
	obs := observe(ctx, ss[*candidates], pfx)
	var (
		released atomic.Int64
		turn     atomic.Int64
		ids      atomic.Int64
		stop     atomic.Bool
		mu       sync.Mutex
		over     sample
		resign   sample
		led      = map[string][2]int64{} // proposal: resign of the one before, start of its own lead
		start    *probe
		end      *probe
		endAt    int64
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
	for c := 0; c < *candidates; c++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			el := concurrency.NewElection(ss[c], pfx)
			for !stop.Load() {
				v := proposal(int(ids.Add(1)))
				if err := el.Campaign(ctx, v); err != nil {
					fail(err)
					return
				}
				t1 := now()
				i := int(turn.Add(1)) - *warm
				measured := i > 0 && i <= *n
				if measured {
					mu.Lock()
					over.add(t1 - released.Load())
					led[v] = [2]int64{released.Load(), t1}
					mu.Unlock()
				}
				if i == 0 || i == *n {
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
				t2 := now()
				released.Store(t2)
				if err := el.Resign(ctx); err != nil {
					fail(err)
					return
				}
				if measured {
					d := now() - t2
					mu.Lock()
					resign.add(d)
					mu.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	if failed != nil {
		return nil, failed
	}
	time.Sleep(200 * time.Millisecond)
	var sinceResign, sinceLead sample
	missed := 0
	for v, t := range led {
		if at, ok := obs.get(v); ok {
			sinceResign.add(at - t[0])
			sinceLead.add(at - t[1])
		} else {
			missed++
		}
	}
	e.set("n", *n)
	e.set("candidates", *candidates)
	e.set("hold_ms", hold.Milliseconds())
	e.set("handover", over.summary())
	e.set("handovers_s", round(float64(*n)/(float64(endAt-start.at)/1e9), 1))
	e.set("resign", resign.summary())
	e.set("observer_since_resign", sinceResign.summary())
	e.set("observer_since_campaign_returned", sinceLead.summary())
	e.set("observer_missed", missed)
	e.set("cost", end.cost(start, *n))

	// Fail-over: a leader's session stops being kept alive (orphaned), or is closed (its lease is revoked); a second
	// candidate waits, an observer watches.
	for _, how := range []string{"orphan", "close"} {
		var gone, seen sample
		var fmu sync.Mutex
		err := each(*failovers, *failovers, func(i int) error {
			time.Sleep(time.Duration(i) * 137 * time.Millisecond)
			p := e.key("failover-%s-%d", how, i)
			old, err := concurrency.NewSession(e.cliFor(i), concurrency.WithTTL(*short))
			if err != nil {
				return err
			}
			next, err := concurrency.NewSession(e.cliFor(i+1), concurrency.WithTTL(e.ttl))
			if err != nil {
				return err
			}
			if err := concurrency.NewElection(old, p).Campaign(ctx, "old"); err != nil {
				return err
			}
			o := observe(ctx, ss[*candidates], p)
			done := make(chan int64, 1)
			errc := make(chan error, 1)
			el := concurrency.NewElection(next, p)
			go func() {
				if err := el.Campaign(ctx, "new"); err != nil {
					errc <- err
					return
				}
				done <- now()
			}()
			// Somewhere in the old session's keep-alive period (a third of its TTL), and longer than the server's 100 ms
			// catch-up timer.
			time.Sleep(500*time.Millisecond + time.Duration(i)*time.Duration(*short)*time.Second/3/time.Duration(*failovers))
			t0 := now()
			if how == "orphan" {
				old.Orphan()
			} else if err := old.Close(); err != nil {
				return err
			}
			var t1 int64
			select {
			case t1 = <-done:
			case err := <-errc:
				return err
			case <-time.After(60 * time.Second):
				return fmt.Errorf("no fail-over in 60 s")
			}
			time.Sleep(300 * time.Millisecond)
			fmu.Lock()
			gone.add(t1 - t0)
			if at, ok := o.get("new"); ok {
				seen.add(at - t0)
			}
			fmu.Unlock()
			return next.Close()
		})
		if err != nil {
			return nil, err
		}
		e.set("failover_"+how, gone.summary())
		e.set("failover_"+how+"_observer", seen.summary())
	}
	e.set("failover_ttl_s", *short)
	return e, closeSessions(ss, 8)
}
