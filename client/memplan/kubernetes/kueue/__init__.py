"""The controller of an AdmissionCheck of Kueue: `memplan kueue`.

    cluster      the objects of Kueue, by the API of the cluster
    check        a Workload and the plans of its Pods become the state of the check
    controller   what is to be checked, one after the other

https://kueue.sigs.k8s.io/docs/concepts/admission_check/
"""
