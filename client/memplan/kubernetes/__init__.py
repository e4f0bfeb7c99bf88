"""What Kubernetes asks before it takes a job: `memplan webhook` and `memplan kueue`.

    annotations     what an object says of itself: the job file, the placement, the policy
    plans           the service's plan, with its request in the words of Kubernetes
    merging         that request within the spec of a Pod, beside what the user wrote there
    objects         Pods, Jobs and TrainJobs: where the Pod's spec is in each
    patch           what was changed, as a JSON Patch
    review          an AdmissionReview is answered
    webhook         the HTTPS server that the API server calls
    certificate     its TLS files, which may be renewed meanwhile
    serving, metrics    what both processes have
    kueue           the controller of an AdmissionCheck of Kueue

The webhook talks to the planner alone and never to the Kubernetes API: it needs no rights there.
"""
