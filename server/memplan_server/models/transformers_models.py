def list_models(): return ()
