"""Why two feature sets, recipes or manifests are not the same: every field and clip that differs.

recipe        fields of the recipe that enter its hash
op_versions   versions of what stages compute
decoders      decoders whose versions enter the key
unhashed      name and [store], which no hash depends on
clips         added, removed, changed (other content), relabelled, in another split or group,
              renamed (the same content under another id)
"""
