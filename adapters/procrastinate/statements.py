"""What is said to procrastinate's tables.

Its functions are used where they are safe with several workers. A job in work is changed only by
statements that name its worker, or when that worker's heartbeat is too old. Whoever locks both
locks the worker before its jobs.
"""

from __future__ import annotations

from sqlalchemy import text

PREFIX = "understudy:"
"""In front of a job's kind, in the names of procrastinate's queue and task."""

CHANNEL = "procrastinate_any_queue_v1"
"""Where procrastinate's trigger tells of new jobs."""

PUT = text("""
    SELECT unnest(procrastinate_defer_jobs_v1(ARRAY[ROW(
        CAST(:name AS varchar), CAST(:name AS varchar), 0, NULL, NULL,
        CAST(CAST(:arguments AS text) AS jsonb),
        CASE WHEN CAST(:delay AS float8) > 0
             THEN clock_timestamp() + make_interval(secs => CAST(:delay AS float8)) END
    )::procrastinate_job_to_defer_v1]))
""")

TAKE = text("""
    SELECT job.id, job.task_name, CAST(job.args AS text) AS args, job.attempts
    FROM generate_series(1, CAST(:limit AS int)) AS number
    CROSS JOIN LATERAL procrastinate_fetch_job_v2(
        CAST(:names AS varchar[]), CAST(:worker AS bigint) + 0 * number
    ) AS job
    WHERE job.id IS NOT NULL
""")
"""The function takes one job; ``0 * number`` has it called anew for each number."""

FINISH = text("""
    DELETE FROM procrastinate_jobs WHERE id = :job AND worker_id = :worker AND status = 'doing'
""")

POSTPONE = text("""
    UPDATE procrastinate_jobs
    SET status = 'todo', worker_id = NULL, abort_requested = false, attempts = attempts + 1,
        scheduled_at = clock_timestamp() + make_interval(secs => CAST(:seconds AS float8))
    WHERE id = :job AND worker_id = :worker AND status = 'doing'
""")

LEAVE = text(f"""
    WITH freed AS (
        UPDATE procrastinate_jobs
        SET status = 'todo', worker_id = NULL, abort_requested = false, scheduled_at = NULL
        WHERE worker_id = :worker AND status = 'doing'
        RETURNING id
    )
    SELECT pg_notify('{CHANNEL}', json_build_object('type', 'job_inserted', 'job_id', id)::text)
    FROM freed
""")  # noqa: S608  (a constant)
"""Gives back all that a worker has and tells the others."""

REGISTER = text("SELECT worker_id FROM procrastinate_register_worker_v1()")

UNREGISTER = text("SELECT procrastinate_unregister_worker_v1(CAST(:worker AS bigint))")

HEARTBEAT = text("""
    UPDATE procrastinate_workers SET last_heartbeat = clock_timestamp()
    WHERE id = :worker RETURNING id
""")
"""No row when others took this worker for dead."""

FREE_UNKNOWN = text("""
    UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL, abort_requested = false
    WHERE worker_id = :worker AND status = 'doing' AND NOT id = ANY(CAST(:jobs AS bigint[]))
""")
"""Jobs that a worker has without knowing it: the answer to ``TAKE`` was lost on its way."""

HELD = text("SELECT id FROM procrastinate_jobs WHERE worker_id = :worker AND status = 'doing'")

FREE_DEAD = text(f"""
    WITH late AS (
        SELECT id FROM procrastinate_workers
        WHERE last_heartbeat < clock_timestamp() - make_interval(secs => CAST(:expiry AS float8))
        FOR UPDATE SKIP LOCKED
    ), held AS (
        SELECT id FROM procrastinate_jobs
        WHERE status = 'doing' AND queue_name LIKE '{PREFIX}%'
          AND (worker_id IS NULL OR worker_id IN (SELECT id FROM late))
        FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE procrastinate_jobs
        SET status = 'todo', worker_id = NULL, abort_requested = false, scheduled_at = NULL,
            attempts = attempts + 1
        WHERE id IN (SELECT id FROM held)
        RETURNING id
    ), gone AS (
        DELETE FROM procrastinate_workers AS worker
        WHERE id IN (SELECT id FROM late) AND NOT EXISTS (
            SELECT 1 FROM procrastinate_jobs AS job
            WHERE job.worker_id = worker.id AND job.id NOT IN (SELECT id FROM held)
        )
    )
    SELECT id FROM freed
""")  # noqa: S608  (a constant)
"""One statement, so that of several replicas that do this at once one frees each job.

It waits for nobody. A worker that is just saying that it lives does; a job that is just being ended
is its worker's yet, and so that worker stays for the next look: its row can't be deleted without
waiting for the job's.
"""
