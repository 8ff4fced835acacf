package main

import (
	"context"
	"fmt"
	"math/rand"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func runFloor(name string, args []string) (*env, error) {
	fs, s := flags(name)
	n := fs.Int("n", 2000, "repetitions of each request")
	fresh := fs.Int("fresh", 60, "repetitions of each way of opening a watch")
	pace := fs.Duration("pace", 0, "pause before each request; > 0: only the watch event and the linearizable get")
	fs.Parse(args)
	e, err := open(*s, 1)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := e.cli()
	e.set("n", *n)

	// One watch, open all along; a key is put and then deleted.
	key := e.key("floor/watched")
	seen := make(chan int64, 1)
	ready := make(chan struct{})
	go func() {
		first := true
		for r := range c.Watch(ctx, key, clientv3.WithCreatedNotify(), clientv3.WithFilterPut()) {
			if r.Created && first {
				first = false
				close(ready)
			}
			if len(r.Events) > 0 {
				seen <- now()
			}
		}
	}()
	<-ready
	var event, answer sample
	before, err := e.probe()
	if err != nil {
		return nil, err
	}
	for i := 0; i < *n; i++ {
		if _, err := c.Put(ctx, key, ""); err != nil {
			return nil, err
		}
		time.Sleep(*pace)
		t0 := now()
		if _, err := c.Delete(ctx, key); err != nil {
			return nil, err
		}
		answer.add(now() - t0)
		event.add(<-seen - t0)
	}
	after, err := e.probe()
	if err != nil {
		return nil, err
	}
	e.set("delete_to_event", event.summary())
	e.set("delete_with_watch_rtt", answer.summary())
	e.set("watch_cost", after.cost(before, *n))

	// Round trips, one caller.
	timed := func(label string, times int, f func(i int) error, tidy func(i int) error) error {
		var d sample
		for i := 0; i < times; i++ {
			time.Sleep(*pace)
			t0 := now()
			if err := f(i); err != nil {
				return fmt.Errorf("%s: %w", label, err)
			}
			d.add(now() - t0)
			if tidy != nil {
				if err := tidy(i); err != nil {
					return fmt.Errorf("%s: %w", label, err)
				}
			}
		}
		e.set(label, d.summary())
		return nil
	}
	plain := e.key("floor/plain")
	held := e.key("floor/held/0")
	if _, err := c.Put(ctx, held, ""); err != nil {
		return nil, err
	}
	var leases []clientv3.LeaseID
	some := min(*n, 500)
	heldPfx := e.key("floor/held/")
	steps := []struct {
		label string
		times int
		f     func(i int) error
		tidy  func(i int) error // not timed
	}{
		{"put_rtt", *n, func(int) error { _, err := c.Put(ctx, plain, ""); return err }, nil},
		{"get_linearizable_rtt", *n, func(int) error { _, err := c.Get(ctx, plain); return err }, nil},
		{"get_serializable_rtt", *n, func(int) error {
			_, err := c.Get(ctx, plain, clientv3.WithSerializable())
			return err
		}, nil},
		{"delete_rtt", *n, func(int) error { _, err := c.Delete(ctx, plain); return err },
			func(int) error { _, err := c.Put(ctx, plain, ""); return err }},
		{"txn_readonly_rtt", *n, func(int) error {
			_, err := c.Txn(ctx).Then(clientv3.OpGet(held)).Commit()
			return err
		}, nil},
		// The shape of the request that joins the queue of a lock. Every 16th time the keys are cleared, to keep the
		// prefix short.
		{"txn_put_and_first_rtt", *n, func(i int) error {
			k := fmt.Sprintf("%s%d", heldPfx, i+1)
			_, err := c.Txn(ctx).
				If(clientv3.Compare(clientv3.CreateRevision(k), "=", 0)).
				Then(clientv3.OpPut(k, ""), clientv3.OpGet(heldPfx, clientv3.WithFirstCreate()...)).
				Commit()
			return err
		}, func(i int) (err error) {
			if i%16 == 15 {
				_, err = c.Delete(ctx, heldPfx, clientv3.WithPrefix())
			}
			return err
		}},
		{"lease_grant_rtt", some, func(int) error {
			r, err := c.Grant(ctx, 60)
			if err == nil {
				leases = append(leases, r.ID)
			}
			return err
		}, nil},
		{"lease_keepalive_once_rtt", some, func(i int) error { _, err := c.KeepAliveOnce(ctx, leases[i]); return err }, nil},
		{"lease_revoke_rtt", some, func(i int) error { _, err := c.Revoke(ctx, leases[i]); return err }, nil},
	}
	e.set("pace_ms", pace.Milliseconds())
	for _, st := range steps {
		if *pace > 0 && st.label != "get_linearizable_rtt" {
			continue
		}
		if err := timed(st.label, st.times, st.f, st.tidy); err != nil {
			return nil, err
		}
	}

	if *pace > 0 {
		return e, nil
	}

	// A watch opened just before the delete, at three start revisions. The server puts a watch whose start revision is
	// not after its current revision into its catch-up group, which it visits every 100 ms.
	for _, mode := range []struct {
		label string
		rev   func(cur int64) int64
	}{
		{"fresh_watch_at_current_revision", func(cur int64) int64 { return cur }},
		{"fresh_watch_at_next_revision", func(cur int64) int64 { return cur + 1 }},
		{"fresh_watch_at_zero", func(int64) int64 { return 0 }},
	} {
		var opening, event sample
		phase := rand.New(rand.NewSource(1))
		for i := 0; i < *fresh; i++ {
			k := e.key("floor/fresh")
			if _, err := c.Put(ctx, k, ""); err != nil {
				return nil, err
			}
			r, err := c.Get(ctx, k)
			if err != nil {
				return nil, err
			}
			wctx, stop := context.WithCancel(ctx)
			t0 := now()
			ch := c.Watch(wctx, k, clientv3.WithRev(mode.rev(r.Header.Revision)),
				clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
			if w := <-ch; !w.Created {
				stop()
				return nil, fmt.Errorf("%s: first answer is not 'created'", mode.label)
			}
			opening.add(now() - t0)
			got := make(chan int64, 1)
			go func() {
				for w := range ch {
					if len(w.Events) > 0 {
						got <- now()
						return
					}
				}
			}()
			t0 = now()
			if _, err := c.Delete(ctx, k); err != nil {
				stop()
				return nil, err
			}
			event.add(<-got - t0)
			stop()
			// Not in step with the server's 100 ms timer.
			time.Sleep(time.Duration(phase.Int63n(int64(200 * time.Millisecond))))
		}
		e.set(mode.label, event.summary())
		e.set(mode.label+"_opening", opening.summary())
	}
	return e, nil
}
