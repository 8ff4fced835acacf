package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sort"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// line is W waiters queued behind one holder.
type line struct {
	e       *env
	w       *wire
	pfx     string
	ss      []*concurrency.Session // ss[0] is the holder's
	holder  *concurrency.Mutex
	granted chan int        // a waiter has the lock (its number)
	let     []chan struct{} // let[i] closed: waiter i may release
	errs    chan error
	wg      sync.WaitGroup

	mu    sync.Mutex
	gotAt []int64
}

// joinError says that not all waiters could be queued.
type joinError struct{ kinds map[string]int }

func (j *joinError) Error() string { return fmt.Sprintf("Lock failed while queueing: %v", j.kinds) }

// enqueue starts the waiters and returns when all their watches are open. free: a waiter releases at once when it has
// the lock. join > 0: no more than that many waiters between their call of Lock and their watch being open.
func (l *line) enqueue(ctx context.Context, waiters, join int, free bool) (stored, watching int64, err error) {
	l.holder = concurrency.NewMutex(l.ss[0], l.pfx)
	if err := l.holder.Lock(ctx); err != nil {
		return 0, 0, err
	}
	l.granted = make(chan int, waiters)
	l.errs = make(chan error, waiters)
	l.let = make([]chan struct{}, waiters)
	l.gotAt = make([]int64, waiters)
	l.w.txns.Store(0)
	l.w.watches.Store(0)
	t0 := now()
	failed := &joinError{map[string]int{}}
	lost := 0
	pause := func() {
		select {
		case err := <-l.errs:
			failed.kinds[err.Error()]++
			lost++
		case <-time.After(500 * time.Microsecond):
		}
	}
	for i := 0; i < waiters; i++ {
		for join > 0 && int(l.w.watches.Load())+lost+join <= i {
			pause()
		}
		l.let[i] = make(chan struct{})
		if free {
			close(l.let[i])
		}
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			m := concurrency.NewMutex(l.ss[i+1], l.pfx)
			if err := m.Lock(ctx); err != nil {
				l.errs <- err
				return
			}
			t := now()
			l.mu.Lock()
			l.gotAt[i] = t
			l.mu.Unlock()
			l.granted <- i
			<-l.let[i]
			if err := m.Unlock(ctx); err != nil {
				l.errs <- err
			}
		}()
	}
	for deadline := now() + int64(2*time.Minute); int(l.w.watches.Load())+lost < waiters; pause() {
		if now() > deadline {
			failed.kinds["no answer in two minutes"] += waiters - lost - int(l.w.watches.Load())
			break
		}
	}
	if len(failed.kinds) > 0 {
		return l.w.lastTxn.Load() - t0, l.w.lastWatch.Load() - t0, failed
	}
	return l.w.lastTxn.Load() - t0, l.w.lastWatch.Load() - t0, nil
}

// order is the waiters' numbers in the order of their keys' create revisions.
func (l *line) order(ctx context.Context) ([]int, error) {
	r, err := l.e.cli().Get(ctx, l.pfx+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	num := map[int64]int{}
	for i, s := range l.ss[1:] {
		num[int64(s.Lease())] = i
	}
	sort.Slice(r.Kvs, func(i, j int) bool { return r.Kvs[i].CreateRevision < r.Kvs[j].CreateRevision })
	var out []int
	for _, kv := range r.Kvs {
		if i, ok := num[kv.Lease]; ok {
			out = append(out, i)
		}
	}
	return out, nil
}

// settled waits until the server has no watcher left in its catch-up group.
func (e *env) settled(base *probe) (int64, error) {
	t0 := now()
	for {
		c, err := scrape(e.murls)
		if err != nil {
			return 0, err
		}
		const slow = "etcd_debugging_mvcc_slow_watcher_total"
		if c[slow] <= base.counters[slow] {
			return now() - t0, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func runQueue(name string, args []string) (*env, error) {
	fs, s := flags(name)
	waiters := fs.Int("waiters", 100, "waiters behind the holder")
	parallel := fs.Int("parallel", 64, "sessions opened or closed at a time")
	join := fs.Int("join", 0, "waiters that may be joining the queue at a time; 0: all at once")
	fs.Parse(args)
	w := &wire{}
	e, err := open(*s, *waiters+1, w.options()...)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	mem := map[string]any{}

	p0, err := e.probe()
	if err != nil {
		return nil, err
	}
	mem["connected"] = p0.memory()
	t0 := now()
	ss, err := e.sessions(*waiters+1, *parallel)
	if err != nil {
		return nil, err
	}
	opened := now() - t0
	p1, err := e.probe()
	if err != nil {
		return nil, err
	}
	mem["sessions_open"] = p1.memory()

	l := &line{e: e, w: w, pfx: e.key("queue"), ss: ss}
	msec := func(ns int64) float64 { return round(float64(ns)/1e6, 2) }
	e.set("waiters", *waiters)
	e.set("parallel", *parallel)
	e.set("join", *join)
	e.set("open_sessions_ms", msec(opened))
	stored, watching, err := l.enqueue(ctx, *waiters, *join, true)
	if failed, ok := err.(*joinError); ok {
		// Some calls of Lock failed. Their keys may be in the queue all the same, with live leases, so there is no
		// draining it.
		p2, err := e.probe()
		if err != nil {
			return nil, err
		}
		mem["enqueued"] = p2.memory()
		e.set("ok", false)
		e.set("lock_errors", failed.kinds)
		e.set("queue_keys_answered", w.txns.Load())
		e.set("watches_open", w.watches.Load())
		e.set("queue_keys_stored", p2.delta(p1, "etcd_debugging_mvcc_keys_total"))
		e.set("failing_ms", msec(p2.at-p1.at))
		e.set("memory", mem)
		e.set("cost_enqueue", p2.cost(p1, *waiters))
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	e.set("ok", true)
	p2, err := e.probe()
	if err != nil {
		return nil, err
	}
	mem["enqueued"] = p2.memory()
	if _, err := e.settled(p0); err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	p2, err = e.probe()
	if err != nil {
		return nil, err
	}
	mem["enqueued_after_gc"] = p2.memory()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	e.set("client_heap_inuse_kb_enqueued", ms.HeapInuse/1024)
	e.set("client_stack_inuse_kb_enqueued", ms.StackInuse/1024)
	want, err := l.order(ctx)
	if err != nil {
		return nil, err
	}
	if len(want) != *waiters {
		return nil, fmt.Errorf("%d keys queued, want %d", len(want), *waiters)
	}

	// Drain.
	p3, err := e.probe()
	if err != nil {
		return nil, err
	}
	t0 = now()
	if err := l.holder.Unlock(ctx); err != nil {
		return nil, err
	}
	got := make([]int, 0, *waiters)
	for len(got) < *waiters {
		select {
		case i := <-l.granted:
			got = append(got, i)
		case err := <-l.errs:
			return nil, err
		}
	}
	l.wg.Wait()
	last := int64(0)
	var gaps sample
	prev := t0
	l.mu.Lock()
	for _, i := range got {
		t := l.gotAt[i]
		gaps.add(t - prev)
		prev = t
		last = max(last, t)
	}
	l.mu.Unlock()
	drained := last - t0
	p4, err := e.probe()
	if err != nil {
		return nil, err
	}
	mem["drained"] = p4.memory()
	outOfOrder := 0
	for i := range got {
		if got[i] != want[i] {
			outOfOrder++
		}
	}
	t0 = now()
	if err := closeSessions(ss, *parallel); err != nil {
		return nil, err
	}
	closed := now() - t0
	debug.FreeOSMemory()
	p5, err := e.probe()
	if err != nil {
		return nil, err
	}
	mem["closed_after_gc"] = p5.memory()

	e.set("enqueue_keys_ms", msec(stored))
	e.set("enqueue_watching_ms", msec(watching))
	e.set("drain_ms", msec(drained))
	e.set("drain_handoffs_s", round(float64(*waiters)/(float64(drained)/1e9), 1))
	e.set("drain_gap", gaps.summary())
	e.set("close_sessions_ms", msec(closed))
	e.set("out_of_order", outOfOrder)
	e.set("memory", mem)
	e.set("cost_open", p1.cost(p0, *waiters+1))
	e.set("cost_enqueue", p2.cost(p1, *waiters))
	e.set("cost_drain", p4.cost(p3, *waiters))
	e.set("cost_close", p5.cost(p4, *waiters+1))
	return e, nil
}
