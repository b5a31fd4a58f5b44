"""Mixed load on several replicas and workers, any of which dies at any moment: `make soak`.

::

    actors of two projects ──> balancer ──> 3 replicas ──> 2 chat and 2 embedding servers
                                             2 workers      (all of them are killed at random)
                                                │
                                                └──> PostgreSQL, S3, Milvus

What was acknowledged is written into a ledger, and looked for at the end.
"""
