module peerbench

go 1.24

require (
	go.etcd.io/etcd/api/v3 v3.5.30
	go.etcd.io/etcd/client/v3 v3.5.30
)
