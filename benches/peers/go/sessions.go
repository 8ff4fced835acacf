package main

import (
	"context"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc"
)

// sessions opens n sessions, at most parallel of them at a time.
func (e *env) sessions(n, parallel int) ([]*concurrency.Session, error) {
	out := make([]*concurrency.Session, n)
	err := each(n, parallel, func(i int) (err error) {
		out[i], err = concurrency.NewSession(e.cliFor(i), concurrency.WithTTL(e.ttl))
		return err
	})
	return out, err
}

func closeSessions(ss []*concurrency.Session, parallel int) error {
	return each(len(ss), parallel, func(i int) error { return ss[i].Close() })
}

// each calls f(0..n-1), at most parallel at a time, and gives the first error.
func each(n, parallel int, f func(i int) error) error {
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		once  sync.Once
		first error
	)
	if parallel > n {
		parallel = n
	}
	for w := 0; w < parallel; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					once.Do(func() { first = err })
					return
				}
			}
		}()
	}
	wg.Wait()
	return first
}

// wire counts, inside the client, the answers that tell how far a waiter has come: its queue key is stored (Txn
// answered), its watch is open (created).
type wire struct {
	txns, watches atomic.Int64
	lastTxn       atomic.Int64
	lastWatch     atomic.Int64
}

func (w *wire) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any,
			cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			if _, ok := reply.(*pb.TxnResponse); ok && err == nil {
				w.txns.Add(1)
				w.lastTxn.Store(now())
			}
			return err
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc,
			cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := streamer(ctx, desc, cc, method, opts...)
			if err != nil {
				return nil, err
			}
			return &counted{s, w}, nil
		}),
	}
}

type counted struct {
	grpc.ClientStream
	w *wire
}

func (c *counted) RecvMsg(m any) error {
	err := c.ClientStream.RecvMsg(m)
	if r, ok := m.(*pb.WatchResponse); ok && err == nil && r.Created {
		c.w.watches.Add(1)
		c.w.lastWatch.Store(now())
	}
	return err
}
