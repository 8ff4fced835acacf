package main

import (
	"context"

	"go.etcd.io/etcd/client/v3/concurrency"
)

func runUncontended(name string, args []string) (*env, error) {
	fs, s := flags(name)
	n := fs.Int("n", 2000, "lock+unlock cycles")
	warm := fs.Int("warmup", 200, "cycles before measuring")
	fs.Parse(args)
	e, err := open(*s, 1)
	if err != nil {
		return nil, err
	}
	ss, err := e.sessions(1, 1)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	m := concurrency.NewMutex(ss[0], e.key("uncontended"))
	var lock, unlock, both sample
	var before *probe
	for i := -*warm; i < *n; i++ {
		if i == 0 {
			if before, err = e.probe(); err != nil {
				return nil, err
			}
		}
		t0 := now()
		if err := m.Lock(ctx); err != nil {
			return nil, err
		}
		t1 := now()
		if err := m.Unlock(ctx); err != nil {
			return nil, err
		}
		t2 := now()
		if i >= 0 {
			lock.add(t1 - t0)
			unlock.add(t2 - t1)
			both.add(t2 - t0)
		}
	}
	after, err := e.probe()
	if err != nil {
		return nil, err
	}
	e.set("n", *n)
	e.set("lock", lock.summary())
	e.set("unlock", unlock.summary())
	e.set("cycle", both.summary())
	e.set("lock_ops_s", lock.opsPerSecond())
	e.set("unlock_ops_s", unlock.opsPerSecond())
	e.set("cycles_s", both.opsPerSecond())
	e.set("cost", after.cost(before, *n))
	return e, closeSessions(ss, 1)
}
