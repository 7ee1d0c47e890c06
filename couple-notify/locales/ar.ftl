# Modern Standard Arabic, singular address. Latin digits, as in codes and links.

code-subject = رمزك في { $app }
sign-up-intro = أدخِل هذا الرمز لتأكيد عنوان بريدك الإلكتروني:
sign-in-intro = رمز تسجيل الدخول:
email-intro = أدخِل هذا الرمز لتأكيد عنوان بريدك الإلكتروني الجديد:
or-open-link = أو افتح هذا الرابط:
confirm-button = تأكيد العنوان
sign-in-button = تسجيل الدخول
code-and-link-lifetime = الرمز صالح لمدة { $code_time }، والرابط صالح لمدة { $link_time }.
code-advice = إذا لم تطلب ذلك، فتجاهل هذه الرسالة ولن يحدث شيء. لا تُطلِع أحدًا على الرمز.

already-subject = لديك حساب بالفعل في { $app }
already-text = حاول شخص ما، ربما أنت، التسجيل في { $app } بهذا العنوان، وهو مرتبط بحساب بالفعل.
already-advice = سجّل الدخول كالمعتاد. إذا نسيت كلمة المرور، فاطلب كلمة مرور جديدة من صفحة الدخول.

password-subject = كلمة مرور جديدة في { $app }
password-intro = افتح هذا الرابط لتعيين كلمة مرور جديدة:
password-button = تعيين كلمة المرور
password-advice = إذا لم تطلب ذلك، فتجاهل هذه الرسالة: لن تتغير كلمة المرور.
link-lifetime = الرابط صالح لمدة { $time }.

email-subject = تأكيد عنوانك الجديد في { $app }
email-asked-subject = طلب تغيير عنوانك في { $app }
email-asked-text = طلب شخص سجّل الدخول إلى حسابك استخدام عنوان آخر له. إذا كنت أنت صاحب الطلب، فلا يلزمك فعل شيء.
email-asked-intro = إذا لم يكن الطلب منك، فافتح هذا الرابط للاحتفاظ بهذا العنوان:
email-asked-button = الاحتفاظ بهذا العنوان
email-asked-advice = بعد ذلك، عيّن كلمة مرور جديدة وسجّل الخروج من أجهزتك الأخرى.
email-changed-subject = تم تغيير عنوانك في { $app }
email-changed-text = أصبح لحسابك عنوان آخر، ولم يعد هذا العنوان مستخدمًا.
email-changed-advice = إذا لم تكن أنت من فعل ذلك، فردّ على هذه الرسالة فورًا.
email-confirmed-text = أصبح هذا العنوان تابعًا لحسابك في { $app }. استخدمه من الآن فصاعدًا لتسجيل الدخول.

password-changed-subject = تم تغيير كلمة مرورك في { $app }
password-changed-text = تم تعيين كلمة مرور جديدة، وتم تسجيل الخروج من جميع الأجهزة الأخرى.
password-changed-advice = إذا لم تكن أنت من فعل ذلك، فاطلب كلمة مرور جديدة فورًا.

device-subject = تسجيل دخول جديد إلى حسابك في { $app }
device-text = تم تسجيل الدخول إلى حسابك من جهاز جديد: { $device }، بتاريخ { $time }.
device-unnamed-text = تم تسجيل الدخول إلى حسابك من جهاز جديد بتاريخ { $time }.
device-advice = إذا لم تكن أنت من فعل ذلك، فعيّن كلمة مرور جديدة فورًا: سيؤدي ذلك إلى تسجيل الخروج من جميع الأجهزة الأخرى.

deletion-subject = سيُحذف حسابك في { $app }
deletion-text = سيُحذف حسابك وكل ما كتبته بتاريخ { $date }.
deletion-advice = إذا غيّرت رأيك، فسجّل الدخول قبل ذلك.
deleted-subject = تم حذف حسابك في { $app }
deleted-text = تم حذف حسابك وكل ما كتبته بناءً على طلبك. لن تصلك رسائل أخرى من { $app }.

invitation-subject = دعوة في { $app }
invitation-text = يرغب { $name } في ربط حسابه بحسابك في { $app }.
invitation-unnamed-text = يرغب شخص يعرف عنوانك في ربط حسابه بحسابك في { $app }. لا تذكر هذه الرسالة من هو: سترى الاسم عند فتح الدعوة.
invitation-intro = رمز الدعوة:
invitation-button = فتح الدعوة
invitation-expiry = الرمز والرابط صالحان حتى { $time }.
invitation-advice = إذا لم تكن تتوقع دعوة، فتجاهل هذه الرسالة ولن يحدث شيء.
accepted-subject = تم قبول دعوتك في { $app }
accepted-text = قَبِل { $name } دعوتك. حساباكما مرتبطان الآن في { $app }.
accepted-advice = إذا كنت لا تعرف هذا الشخص، فألغِ ربط الحسابين في التطبيق.

left-subject = انتهى ربط حسابك في { $app }
left-text = أنهى الشخص المرتبط بحسابك في { $app } ربط الحسابين.
left-advice = لا يلزمك فعل شيء: سيبقى حسابك كما هو.

digest-subject = رسائل غير مقروءة في { $app }
digest-text =
    { $form ->
        [zero] لديك { $count } رسالة غير مقروءة في { $app }.
        [one] لديك رسالة واحدة غير مقروءة في { $app }.
        [two] لديك رسالتان غير مقروءتين في { $app }.
        [few] لديك { $count } رسائل غير مقروءة في { $app }.
        [many] لديك { $count } رسالة غير مقروءة في { $app }.
       *[other] لديك { $count } رسالة غير مقروءة في { $app }.
    }
digest-from-text =
    { $form ->
        [zero] لديك { $count } رسالة غير مقروءة من { $name } في { $app }.
        [one] لديك رسالة واحدة غير مقروءة من { $name } في { $app }.
        [two] لديك رسالتان غير مقروءتين من { $name } في { $app }.
        [few] لديك { $count } رسائل غير مقروءة من { $name } في { $app }.
        [many] لديك { $count } رسالة غير مقروءة من { $name } في { $app }.
       *[other] لديك { $count } رسالة غير مقروءة من { $name } في { $app }.
    }
digest-advice = افتح التطبيق للقراءة والرد.
digest-reason = تصلك هذه الرسالة لأنك طلبت إشعارًا بالبريد عن الرسائل غير المقروءة.
digest-stop = إيقاف هذه الرسائل البريدية

stop-title = إشعارات البريد عن الرسائل غير المقروءة
stop-question = هل تريد إيقاف هذه الرسائل البريدية؟
stop-done = لن تصلك رسائل بريدية أخرى عن الرسائل غير المقروءة. يمكنك تفعيلها مجددًا في التطبيق.
stop-failed = هذا الرابط لا يعمل. أوقف الرسائل البريدية من التطبيق.

news-subject = أخبار من { $app }
news-text = افتح التطبيق.

# Always after the word for "for the period of": genitive.
duration-seconds =
    { $form ->
        [zero] { $count } ثانية
        [one] ثانية واحدة
        [two] ثانيتين
        [few] { $count } ثوانٍ
        [many] { $count } ثانية
       *[other] { $count } ثانية
    }
duration-minutes =
    { $form ->
        [zero] { $count } دقيقة
        [one] دقيقة واحدة
        [two] دقيقتين
        [few] { $count } دقائق
        [many] { $count } دقيقة
       *[other] { $count } دقيقة
    }
duration-hours =
    { $form ->
        [zero] { $count } ساعة
        [one] ساعة واحدة
        [two] ساعتين
        [few] { $count } ساعات
        [many] { $count } ساعة
       *[other] { $count } ساعة
    }
duration-days =
    { $form ->
        [zero] { $count } يوم
        [one] يوم واحد
        [two] يومين
        [few] { $count } أيام
        [many] { $count } يومًا
       *[other] { $count } يوم
    }

date =
    { $day } { $month ->
        [1] يناير
        [2] فبراير
        [3] مارس
        [4] أبريل
        [5] مايو
        [6] يونيو
        [7] يوليو
        [8] أغسطس
        [9] سبتمبر
        [10] أكتوبر
        [11] نوفمبر
       *[12] ديسمبر
    } { $year }
date-time = { $date }، { $time } UTC
