package main

import (
	"context"
	"time"
)

// runHerd releases the lock a few times, one release at a time, with the whole queue waiting, and reads the server's
// counters round each release.
func runHerd(name string, args []string) (*env, error) {
	fs, s := flags(name)
	waiters := fs.Int("waiters", 100, "waiters behind the holder")
	releases := fs.Int("releases", 10, "releases measured")
	quiet := fs.Duration("quiet", 300*time.Millisecond, "time given to each release to settle")
	join := fs.Int("join", 64, "waiters that may be joining the queue at a time; 0: all at once")
	fs.Parse(args)
	if *releases > *waiters {
		*releases = *waiters
	}
	w := &wire{}
	e, err := open(*s, *waiters+1, w.options()...)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	p0, err := e.probe()
	if err != nil {
		return nil, err
	}
	ss, err := e.sessions(*waiters+1, 64)
	if err != nil {
		return nil, err
	}
	l := &line{e: e, w: w, pfx: e.key("herd"), ss: ss}
	if _, _, err := l.enqueue(ctx, *waiters, *join, false); err != nil {
		return nil, err
	}
	if _, err := e.settled(p0); err != nil {
		return nil, err
	}
	time.Sleep(*quiet)
	p1, err := e.probe()
	if err != nil {
		return nil, err
	}
	release := func() error { return l.holder.Unlock(ctx) }
	var per []float64
	var took sample
	prev := p1
	for r := 0; r < *releases; r++ {
		t0 := now()
		if err := release(); err != nil {
			return nil, err
		}
		var who int
		select {
		case who = <-l.granted:
		case err := <-l.errs:
			return nil, err
		}
		l.mu.Lock()
		took.add(l.gotAt[who] - t0)
		l.mu.Unlock()
		time.Sleep(*quiet)
		p, err := e.probe()
		if err != nil {
			return nil, err
		}
		per = append(per, p.delta(prev, "etcd_debugging_mvcc_events_total"))
		prev = p
		release = func() error { close(l.let[who]); return nil }
	}
	e.set("waiters", *waiters)
	e.set("releases", *releases)
	e.set("events_each_release", per)
	e.set("handoff", took.summary())
	e.set("cost", prev.cost(p1, *releases))
	// Let the rest of the queue through.
	for i := range l.let {
		select {
		case <-l.let[i]:
		default:
			close(l.let[i])
		}
	}
	l.wg.Wait()
	return e, closeSessions(ss, 64)
}
